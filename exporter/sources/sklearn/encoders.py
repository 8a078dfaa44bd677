"""One-hot encoding of numbers and rare categories, and ordinal encoding of missing values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from exporter.arrays import Array
from exporter.sources.sklearn.operator_graph import OperatorGraph

__all__ = ["ENCODERS", "encoded_width", "is_merged"]


def encoded_width(estimator: Any) -> int:
    """Return how many columns an encoder gives."""
    return int(sum(estimator._n_features_outs))  # noqa: SLF001 - its names are made of them


def is_merged(estimator: Any) -> bool:
    """Whether an encoder counts rare categories as one, or drops some."""
    rare: bool = estimator._infrequent_enabled  # noqa: SLF001 - as the encoder itself
    return rare or estimator.drop_idx_ is not None


def _one_hot(graph: OperatorGraph, estimator: Any) -> bool:
    words = graph.string_matrix()
    if words and not is_merged(estimator):
        return False
    if not words and not _are_numbers(estimator):
        return False
    given = words or graph.input_matrix(TensorProto.DOUBLE)
    parts = []
    for column, categories in enumerate(estimator.categories_):
        place = graph.constant(np.array([column], np.int64))
        values = graph.node("Gather", given, place, axis=1)
        each = (_words_of if words else _numbers_of)(graph, values, categories)
        parts.append(_merged(graph, each, estimator, column))
    graph.set_output(graph.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0])
    return True


def _words_of(graph: OperatorGraph, values: str, categories: Array) -> str:
    """Return a column for each category of words; float32 [rows, categories]."""
    known = graph.node(
        "OneHotEncoder",
        values,
        domain="ai.onnx.ml",
        cats_strings=[str(category) for category in categories],
        zeros=1,
    )
    return graph.node("Reshape", known, graph.constant(np.array([-1, len(categories)], np.int64)))


def _numbers_of(graph: OperatorGraph, values: str, categories: Array) -> str:
    """Return the same for numbers, which skl2onnx cuts to whole ones; NaN may be the last."""
    found = np.asarray(categories, np.float64)
    missing = np.isnan(found)
    equal = graph.node("Equal", values, graph.constant(found[None]))
    if missing.any():
        nothing = graph.node("And", graph.node("IsNaN", values), graph.constant(missing[None]))
        equal = graph.node("Or", equal, nothing)
    return graph.node("Cast", equal, to=TensorProto.FLOAT)


def _are_numbers(estimator: Any) -> bool:
    return all(np.asarray(found).dtype.kind in "fiu" for found in estimator.categories_)


def _merged(graph: OperatorGraph, each: str, estimator: Any, column: int) -> str:
    """Merge the columns of rare categories, and drop what is dropped; float32 [rows, kept]."""
    merges, rare = _merges(estimator, column)
    kept = np.arange(merges.shape[1])
    dropped = estimator._drop_idx_after_grouping  # noqa: SLF001
    if dropped is not None and dropped[column] is not None:
        kept = np.delete(kept, int(dropped[column]))
    result = graph.node("MatMul", each, graph.constant(merges[:, kept]))
    if rare is None or estimator.handle_unknown not in {"infrequent_if_exist", "warn"}:
        return result
    # Categories that were not in training are rare as well.
    seen = graph.node("ReduceSum", each, graph.constant(np.array([1], np.int64)), keepdims=1)
    unseen = graph.node("Sub", graph.constant(np.array([[1]], np.float32)), seen)
    as_rare = graph.constant((kept == rare)[None].astype(np.float32))
    return graph.node("Add", result, graph.node("Mul", unseen, as_rare))


def _merges(estimator: Any, column: int) -> tuple[Array, int | None]:
    """Return the matrix from categories to columns, and the column of rare ones if there is one."""
    mappings = getattr(estimator, "_default_to_infrequent_mappings", None)
    mapping = None if mappings is None else mappings[column]
    count = len(estimator.categories_[column])
    if mapping is None:
        return np.eye(count, dtype=np.float32), None
    return np.eye(mapping.max() + 1, dtype=np.float32)[mapping], int(mapping.max())


def _ordinal(graph: OperatorGraph, estimator: Any) -> bool:
    """Encode numbers of which some are missing, or may be unknown, as scikit-learn does."""
    # Rare categories are left to skl2onnx.
    if not _are_numbers(estimator) or estimator._infrequent_enabled:  # noqa: SLF001
        return False
    given = graph.input_matrix(TensorProto.DOUBLE)
    parts = []
    for column, categories in enumerate(estimator.categories_):
        found = np.asarray(categories, np.float64)
        place = graph.constant(np.array([column], np.int64))
        values = graph.node("Gather", given, place, axis=1)
        known = found[~np.isnan(found)]
        equal = graph.node("Equal", values, graph.constant(known[None]))
        each = graph.node("Cast", equal, to=TensorProto.DOUBLE)
        codes = graph.constant(np.arange(len(known), dtype=np.float64)[:, None])
        result = graph.node("MatMul", each, codes)
        if estimator.handle_unknown == "use_encoded_value":
            axis = graph.constant(np.array([1], np.int64))
            seen = graph.node("ReduceSum", each, axis, keepdims=1)
            is_known = graph.node("Greater", seen, graph.constant(np.array([0.5])))
            unknown = graph.constant(np.array([float(estimator.unknown_value)]))
            result = graph.node("Where", is_known, result, unknown)
        if len(known) < len(found):
            missing = graph.constant(np.array([float(estimator.encoded_missing_value)]))
            result = graph.node("Where", graph.node("IsNaN", values), missing, result)
        parts.append(result)
    graph.set_output(graph.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0])
    return True


ENCODERS: dict[str, Callable[[OperatorGraph, Any], bool]] = {
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
}
"""Converters by skl2onnx's names; each returns whether it handled the operator."""
