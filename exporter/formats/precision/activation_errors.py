"""Measures activations: how large tensors get, and which nodes add errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from exporter.arrays import Array
from exporter.formats.precision.evaluator import Evaluator
from exporter.formats.precision.onnx_io import types_of

__all__ = ["activation_ranges", "node_errors"]


def activation_ranges(plain: ModelProto, evaluator: Evaluator) -> dict[str, float]:
    """Return the largest finite magnitude of every float32 tensor of a model's graph."""
    names = _given(plain)
    session = _showing(plain, names, evaluator)
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
    """Return the error that every node of a reduced model adds to that of its inputs.

    Errors are relative to a tensor's magnitude; infinite where a number became NaN or infinite.
    *seen* has the name in the reduced model of every tensor that is left.
    """
    names = [name for name in _given(plain) if name in seen]
    others = [seen[name] for name in names]
    left, right = _showing(plain, names, evaluator), _showing(reduced, others, evaluator)
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
    """Every float32 output of the graph's nodes."""
    types = types_of(model.graph)
    outputs = (name for node in model.graph.node for name in node.output)
    return [name for name in outputs if types.get(name) == TensorProto.FLOAT]


def _showing(model: ModelProto, names: Sequence[str], evaluator: Evaluator) -> Any:
    """Return a session of a model with more outputs."""
    copy = deepcopy(model)
    shown = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in shown
    )
    return evaluator.load(copy)


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
