"""Converts numeric steps that skl2onnx or ONNX Runtime support in float32 alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from exporter.arrays import Array
from exporter.errors import ValidationFailedError
from exporter.sources.sklearn.operator_graph import OperatorGraph
from exporter.sources.sklearn.ufuncs import applied
from exporter.sources.tabular.tree_ensemble import cast, widened

__all__ = ["NUMBERS", "SCALERS", "imputed_columns", "is_nothing", "operations"]

SCALERS = frozenset({"MaxAbsScaler", "MinMaxScaler", "RobustScaler", "StandardScaler"})
_FLOATS = {int(TensorProto.FLOAT): np.float32, int(TensorProto.DOUBLE): np.float64}


def _imputer(graph: OperatorGraph, estimator: Any) -> bool:
    """Fill missing numbers in float64 as well, which ONNX Runtime's own imputer does not."""
    marker = estimator.missing_values
    if is_nothing(marker) and (words := graph.string_matrix()):
        if estimator.add_indicator or len(imputed_columns(estimator)) < len(estimator.statistics_):
            raise ValidationFailedError(
                "SimpleImputer has no ONNX form where it adds or drops columns of words",
                hint="Leave add_indicator off, and columns of nothing but missing values out.",
                kind="convert",
            )
        graph.set_strings(words)  # no string is missing
        return True
    filled = np.asarray(estimator.statistics_)
    if all(isinstance(value, int | float) for value in filled.tolist()):
        filled = filled.astype(np.float64)  # a constant is an object
    kind = graph.kind()
    if filled.dtype.kind not in "fiu" or not isinstance(marker, int | float) or kind not in _FLOATS:
        return False
    values = graph.input_matrix(kind)
    dtype = _FLOATS[kind]
    if np.isnan(marker):
        missing = graph.node("IsNaN", values)
    else:
        missing = graph.node("Equal", values, graph.constant(np.array([marker], dtype)))
    result = graph.node("Where", missing, graph.constant(filled.astype(dtype)), values)
    kept = imputed_columns(estimator)
    if len(kept) < len(filled):
        result = graph.node("Gather", result, graph.constant(kept), axis=1)
    if estimator.add_indicator:
        shown = np.asarray(estimator.indicator_.features_, np.int64)
        indicator = cast(graph, graph.node("Gather", missing, graph.constant(shown), axis=1), kind)
        result = graph.node("Concat", result, indicator, axis=1)
    graph.set_output(result)
    return True


def imputed_columns(estimator: Any) -> Array:
    """Return the columns that an imputer keeps: those that have something to fill them with."""
    filled = np.asarray(estimator.statistics_)
    empty = np.array([is_nothing(value) for value in filled], dtype=bool)
    return np.flatnonzero(~empty | estimator.keep_empty_features)


def is_nothing(value: Any) -> bool:
    """Whether a value is None or NaN, which no word is."""
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _function(graph: OperatorGraph, estimator: Any) -> bool:
    if estimator.func is None:
        return False
    kind = graph.kind()
    if estimator.kw_args or kind not in _FLOATS:
        raise ValidationFailedError(
            "FunctionTransformer has no ONNX form with arguments, or on what are no numbers",
            hint="Apply one of NumPy's functions to columns of numbers, without kw_args.",
            kind="convert",
        )
    graph.set_output(applied(graph, estimator.func, graph.input_matrix(kind), _FLOATS[kind]))
    return True


def _binarizer(graph: OperatorGraph, estimator: Any) -> bool:
    kind = graph.kind()
    if kind not in _FLOATS:
        return False
    threshold = graph.constant(np.array([estimator.threshold], _FLOATS[kind]))
    graph.set_output(graph.node("Greater", graph.input_matrix(kind), threshold))
    return True


def _bins(graph: OperatorGraph, estimator: Any) -> bool:
    """Count the inner edges of every column that a number reaches."""
    inner = [np.asarray(edges)[1:-1] for edges in estimator.bin_edges_]
    most = max(1, *(len(edges) for edges in inner)) if inner else 1
    edges = np.full((len(inner), most), np.inf)
    for column, found in enumerate(inner):
        edges[column, : len(found)] = found
    values = graph.input_matrix(int(TensorProto.DOUBLE))
    each = graph.node("Unsqueeze", values, graph.constant(np.array([2], np.int64)))
    below = graph.node("Less", each, graph.constant(edges))
    reached = cast(graph, graph.node("Not", below), TensorProto.INT64)
    bins = graph.node("ReduceSum", reached, graph.constant(np.array([2], np.int64)), keepdims=0)
    if estimator.encode != "ordinal":
        parts = []
        for column, count in enumerate(estimator.n_bins_):
            place = graph.constant(np.array([column], np.int64))
            one = graph.node("Gather", bins, place, axis=1)
            known = graph.constant(np.arange(int(count), dtype=np.int64)[None])
            parts.append(graph.node("Equal", one, known))
        bins = graph.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    graph.set_output(bins)
    return True


def _scaler(graph: OperatorGraph, estimator: Any) -> bool:
    """Subtract and divide as scikit-learn does, where skl2onnx multiplies by a reciprocal."""
    kind = graph.kind()
    steps = operations(estimator)
    if kind not in _FLOATS or not steps or getattr(estimator, "clip", False):
        return False
    # The others compute in float64 and round after every operation.
    narrow = kind == TensorProto.FLOAT and type(estimator).__name__ != "StandardScaler"
    dtype = np.float64 if narrow else _FLOATS[kind]
    values = graph.input_matrix(kind)
    for number, (name, constant) in enumerate(steps):
        if narrow:
            values = widened(graph, values, again=number > 0)
        values = graph.node(name, values, graph.constant(np.asarray(constant, dtype)[None]))
        if narrow:
            values = cast(graph, values, kind)
    graph.set_output(values)
    return True


def operations(estimator: Any) -> list[tuple[str, Any]]:
    """Return what one of the `SCALERS` does: operators of ONNX, each with its constant."""
    kind = type(estimator).__name__
    if kind == "MinMaxScaler":
        return [("Mul", estimator.scale_), ("Add", estimator.min_)]
    centre = {"StandardScaler": "mean_", "RobustScaler": "center_"}.get(kind, "")
    found = [("Sub", getattr(estimator, centre, None)), ("Div", estimator.scale_)]
    if kind == "StandardScaler" and not estimator.with_mean:
        del found[0]
    return [(name, constant) for name, constant in found if constant is not None]


def _tfidf(graph: OperatorGraph, estimator: Any) -> bool:
    """Weigh words whose counts are logarithms, of which skl2onnx takes those of one more.

    Source: scikit-learn ``sklearn/feature_extraction/text.py``, TfidfTransformer.
    """
    kind = graph.kind()
    if not estimator.sublinear_tf or kind not in _FLOATS:
        return False
    dtype = _FLOATS[kind]
    counts = graph.input_matrix(kind)
    one, zero = (graph.constant(np.array([number], dtype)) for number in (1, 0))
    there = graph.node("Greater", counts, zero)
    logarithm = graph.node("Log", graph.node("Where", there, counts, one))
    result = graph.node("Where", there, graph.node("Add", logarithm, one), zero)
    if estimator.use_idf:
        weights = np.asarray(estimator.idf_, dtype)[None]
        result = graph.node("Mul", result, graph.constant(weights))
    if estimator.norm is not None:
        axis = graph.constant(np.array([1], np.int64))
        norm = graph.node(f"Reduce{estimator.norm.upper()}", result, axis, keepdims=1)
        some = graph.node("Greater", norm, zero)
        result = graph.node("Div", result, graph.node("Where", some, norm, one))
    graph.set_output(result)
    return True


def _power(graph: OperatorGraph, estimator: Any) -> bool:
    """Raise numbers to a power in a form in which missing ones stay missing.

    Source: scikit-learn ``sklearn/preprocessing/_data.py``, PowerTransformer.
    """
    kind = graph.kind()
    if kind not in _FLOATS:
        return False
    values = graph.input_matrix(TensorProto.DOUBLE)
    one, zero = graph.constant(np.array([1.0])), graph.constant(np.array([0.0]))
    powers = np.asarray(estimator.lambdas_, np.float64)
    if estimator.method == "box-cox":
        result = _to_power(graph, values, powers)
    else:
        above = graph.node("GreaterOrEqual", values, zero)
        size = graph.node("Add", graph.node("Abs", values), one)
        below = graph.node("Neg", _to_power(graph, size, 2.0 - powers))
        result = graph.node("Where", above, _to_power(graph, size, powers), below)
    if estimator.standardize:
        scaler = estimator._scaler  # noqa: SLF001 - its mean and scale
        result = graph.node("Sub", result, graph.constant(np.asarray(scaler.mean_)[None]))
        result = graph.node("Div", result, graph.constant(np.asarray(scaler.scale_)[None]))
    graph.set_output(result)
    return True


def _to_power(graph: OperatorGraph, base: str, powers: Array) -> str:
    """Return ``(base ** power - 1) / power`` in each column, and the logarithm for power 0."""
    logarithm = np.abs(powers) < np.finfo(np.float64).eps
    divisors = np.where(logarithm, 1.0, powers)
    raised = graph.node("Pow", base, graph.constant(divisors[None]))
    less = graph.node("Sub", raised, graph.constant(np.array([1.0])))
    result = graph.node("Div", less, graph.constant(divisors[None]))
    return graph.node("Where", graph.constant(logarithm[None]), graph.node("Log", base), result)


NUMBERS: dict[str, Callable[[OperatorGraph, Any], bool]] = {
    "FunctionTransformer": _function,
    "SimpleImputer": _imputer,
    "Binarizer": _binarizer,
    "KBinsDiscretizer": _bins,
    "PowerTransformer": _power,
    "TfidfTransformer": _tfidf,
    "Scaler": _scaler,
    "MinMaxScaler": _scaler,
    "MaxAbsScaler": _scaler,
    "RobustScaler": _scaler,
}
"""Converters by skl2onnx's names; each returns whether it handled the operator."""
