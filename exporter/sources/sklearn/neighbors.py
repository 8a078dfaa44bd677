"""Converts nearest neighbours, weighted as in scikit-learn.

Source: scikit-learn ``sklearn/neighbors/_base.py``, ``_classification.py``, ``_regression.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from exporter.arrays import Array
from exporter.errors import ValidationFailedError
from exporter.sources.sklearn.operator_graph import OperatorGraph
from exporter.sources.tabular.tree_ensemble import argmax, cast

__all__ = ["NEIGHBOURS"]

_METRICS = ("euclidean", "manhattan")
# Every feature adds nodes; scikit-learn itself uses products of matrices for more.
_MOST_FEATURES = 64


def _classifier(graph: OperatorGraph, estimator: Any) -> bool:
    if len(graph.outputs) != 2 or not _is_known(estimator):
        return False
    classes = np.eye(len(estimator.classes_))[np.asarray(estimator._y)]  # noqa: SLF001
    probabilities = _mean(graph, estimator, classes)
    graph.set_classes(argmax(graph, probabilities))
    graph.set_output(probabilities)
    return True


def _regressor(graph: OperatorGraph, estimator: Any) -> bool:
    if len(graph.outputs) != 1 or not _is_known(estimator):
        return False
    values = np.asarray(estimator._y, np.float64)  # noqa: SLF001
    graph.set_output(_mean(graph, estimator, values.reshape(len(values), -1)))
    return True


def _is_known(estimator: Any) -> bool:
    """Whether an estimator is converted here.

    Raises:
        ValidationFailedError: It is not, and skl2onnx would weight all neighbours equally.
    """
    points = estimator._fit_X  # noqa: SLF001
    known = (
        isinstance(points, np.ndarray)
        and points.shape[1] <= _MOST_FEATURES
        and np.ndim(estimator.classes_[0] if hasattr(estimator, "classes_") else 0) == 0
        and estimator.effective_metric_ in _METRICS
        and not estimator.effective_metric_params_
        and estimator.weights in (None, "uniform", "distance")
    )
    if not known and estimator.weights not in (None, "uniform"):
        raise ValidationFailedError(
            f"{type(estimator).__name__} has no ONNX form with these weights of its neighbours",
            hint="Weigh them by distance, euclidean or manhattan, of at most "
            f"{_MOST_FEATURES} features, or all alike.",
            kind="convert",
        )
    return bool(known)


def _mean(graph: OperatorGraph, estimator: Any, values: Array) -> str:
    """Add the mean of the nearest neighbours' values, float64 [rows, values]."""
    manhattan = estimator.effective_metric_ == "manhattan"
    points = np.asarray(estimator._fit_X, np.float64)  # noqa: SLF001
    every = _distances(graph, points, manhattan=manhattan)
    count = graph.constant(np.array([estimator.n_neighbors], np.int64))
    near, places = graph.nodes("TopK", 2, every, count, axis=1, largest=0)
    found = graph.node("Gather", graph.constant(values), places, axis=0)
    across = graph.constant(np.array([1], np.int64))
    if estimator.weights != "distance":
        return graph.node("ReduceMean", found, across, keepdims=0)
    weights = _weights(graph, near if manhattan else graph.node("Sqrt", near), across)
    each = graph.node("Unsqueeze", weights, graph.constant(np.array([2], np.int64)))
    total = graph.node("ReduceSum", graph.node("Mul", found, each), across, keepdims=0)
    return graph.node("Div", total, graph.node("ReduceSum", weights, across, keepdims=1))


def _distances(graph: OperatorGraph, points: Array, *, manhattan: bool) -> str:
    """Add the distance of every row to every point, squared where it is euclidean."""
    rows = graph.input_matrix(int(TensorProto.DOUBLE))
    total = ""
    for feature in range(points.shape[1]):
        place = graph.constant(np.array([feature], np.int64))
        column = graph.node("Gather", rows, place, axis=1)
        gap = graph.node("Sub", column, graph.constant(points[None, :, feature]))
        part = graph.node("Abs", gap) if manhattan else graph.node("Mul", gap, gap)
        total = graph.node("Add", total, part) if total else part
    return total


def _weights(graph: OperatorGraph, distances: str, across: str) -> str:
    """Add one over every distance; where a row has some of zero, those count and no others."""
    inverse = graph.node("Reciprocal", distances)
    same = cast(graph, graph.node("IsInf", inverse), TensorProto.DOUBLE)
    some = graph.node("ReduceMax", same, across, keepdims=1)
    return graph.node("Where", cast(graph, some, TensorProto.BOOL), same, inverse)


NEIGHBOURS: dict[str, Callable[[OperatorGraph, Any], bool]] = {
    "KNeighborsClassifier": _classifier,
    "KNeighborsRegressor": _regressor,
}
"""Converters by skl2onnx's names; each returns whether it handled the operator."""
