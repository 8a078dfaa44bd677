"""The common part of the converters of boosted trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from exporter.arrays import Array
from exporter.sources.base import OnnxTarget
from exporter.sources.tabular.tree_ensemble import Graph, GraphBuilder, argmax, class_at

__all__ = ["BoosterConverter"]

_INT64, _STRING = 7, 8


class BoosterConverter:
    """Writes boosted trees.

    Args:
        add: Adds the prediction to a graph, from its features; probabilities for a classifier.
        kind: The element type of the prediction.
        classes: A classifier's classes, as they are served; None for a regressor.
    """

    def __init__(
        self, add: Callable[[GraphBuilder, str], str], kind: int, classes: Array | None = None
    ) -> None:
        self._add = add
        self._kind = kind
        self._classes = classes

    def __call__(
        self, taken: Sequence[tuple[str, int, int]], target: OnnxTarget
    ) -> onnx.ModelProto:
        """Return the graph; see `exporter.sources.tabular.source.Converter`."""
        ((name, kind, width),) = taken
        graph = Graph(name, kind, width)
        given = self._add(graph, name)
        if self._classes is None:
            return graph.build({"prediction": (given, self._kind)}, target)
        words = self._classes.dtype.kind not in "biuf"
        classes = self._classes.astype(object if words else np.int64)
        label = class_at(graph, argmax(graph, given), classes)
        of_label = _STRING if words else _INT64
        return graph.build(
            {"label": (label, of_label), "probabilities": (given, self._kind)}, target
        )
