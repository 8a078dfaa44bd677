"""Looks inside of models: how large their tensors get, and which nodes bring in errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from exporter.formats.precision.onnx_io import types_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import NodeProto

    from exporter.arrays import Array
    from exporter.formats.precision.evaluator import Evaluator

__all__ = ["activation_ranges", "node_errors"]


def activation_ranges(plain: ModelProto, evaluator: Evaluator) -> dict[str, float]:
    """Return the largest finite magnitude of every float32 tensor of a model's graph.

    Args:
        plain: The model in float32, as `exporter.formats.precision.onnx_io.read` returns it.
        evaluator: What it is asked.
    """
    names = _given(plain)
    session = evaluator.load(_showing(plain, names))
    found: dict[str, float] = {}
    for inputs in evaluator.pieces():
        arrays = {name: a for name, a in inputs.items() if a.dtype == np.float32}
        arrays |= dict(zip(names, session.run(names, inputs), strict=True))
        for name, array in arrays.items():
            found[name] = max(found.get(name, 0.0), _magnitude(array))
    return found


def node_errors(
    plain: ModelProto, reduced: ModelProto, seen: Mapping[str, str], evaluator: Evaluator
) -> dict[str, float]:
    """Return what error every node of a reduced model brings in, beside what it was handed.

    Errors are parts of a tensor's magnitude; infinite where a number became none.

    Args:
        plain: The model in float32.
        reduced: The same, reduced.
        seen: What a tensor of the former is called in the latter, where it is there.
        evaluator: What both are asked.
    """
    names = [name for name in _given(plain) if name in seen]
    others = [seen[name] for name in names]
    left = evaluator.load(_showing(plain, names))
    right = evaluator.load(_showing(reduced, others))
    errors = dict.fromkeys(names, 0.0)
    for inputs in evaluator.pieces():
        before, after = left.run(names, inputs), right.run(others, inputs)
        for name, one, other in zip(names, before, after, strict=True):
            errors[name] = max(errors[name], _error(one, other))
    return {node.name: _own(node, errors) for node in plain.graph.node}


def _own(node: NodeProto, errors: Mapping[str, float]) -> float:
    handed = max((errors.get(name, 0.0) for name in node.input), default=0.0)
    given = max((errors.get(name, 0.0) for name in node.output), default=0.0)
    return 0.0 if math.isinf(handed) else max(given - handed, 0.0)


def _given(model: ModelProto) -> list[str]:
    """Every float32 tensor that a node of the graph gives."""
    types = types_of(model.graph)
    outputs = (name for node in model.graph.node for name in node.output)
    return [name for name in outputs if types.get(name) == TensorProto.FLOAT]


def _showing(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy of a model with more outputs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    shown = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in shown
    )
    return copy


def _magnitude(array: Array) -> float:
    finite = np.abs(array, where=np.isfinite(array), out=np.zeros(array.shape, array.dtype))
    return float(np.max(finite, initial=0.0))


def _error(reference: Array, candidate: Any) -> float:
    if reference.shape != candidate.shape:
        return math.inf
    finite = np.isfinite(reference)
    if (finite != np.isfinite(candidate)).any():
        return math.inf
    gap = np.subtract(candidate, reference, where=finite, out=np.zeros(reference.shape, np.float64))
    return float(np.max(np.abs(gap), initial=0.0)) / (_magnitude(reference) or 1.0)
