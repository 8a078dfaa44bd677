"""Writes ensembles of decision trees with the comparisons of their own library.

A tree's branch depends on the last digit of a threshold. Other converters write thresholds as
float32 and round features differently from the library, which no random input shows: only values on
a threshold do, such as prices in cents, whole numbers and times. So thresholds and leaves are
written in float64 here, and features are rounded as in the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter.arrays import Array
from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget

__all__ = [
    "ML_OPSET",
    "Ensemble",
    "Graph",
    "GraphBuilder",
    "Tree",
    "argmax",
    "binary",
    "cast",
    "class_at",
    "divided",
    "no_onnx_form",
    "scores",
    "whole",
    "widened",
]

ML_OPSET = 3  # of ai.onnx.ml: the first with float64 in trees, and what every release reads


class GraphBuilder(Protocol):
    """Builds a graph of nodes and constants."""

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its only output."""

    def constant(self, values: Array) -> str:
        """Add a constant and return its name."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree; all arrays have one element per node, the root first.

    Attributes:
        feature: The feature that is compared.
        threshold: What it is compared with, float64.
        yes: The next node where it is less; -1 for a leaf.
        no: The next node where it is not.
        missing: Whether ``yes`` is next where the feature is NaN.
        values: What a leaf adds to the targets from the first on, of shape [nodes, targets].
        first: The first target.
        equal: Whether a node compares for equality; None where none does.
    """

    feature: Array
    threshold: Array
    yes: Array
    no: Array
    missing: Array
    values: Array
    first: int = 0
    equal: Array | None = None


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees whose leaves are added up.

    Attributes:
        trees: The trees.
        targets: How many sums there are.
        strict: Whether a node compares with ``<``, not ``<=``.
        rounds: Whether features are rounded to float32 before they are compared.
        wide: Whether thresholds and sums are float64.
    """

    trees: Sequence[Tree]
    targets: int
    strict: bool = False
    rounds: bool = False
    wide: bool = True


def scores(graph: GraphBuilder, features: str, ensemble: Ensemble) -> str:
    """Add an ensemble, and return its sums of shape [rows, targets], float64 where it is wide.

    The operator always returns float32.
    """
    if not ensemble.wide:
        features = cast(graph, features, TensorProto.FLOAT)
    elif ensemble.rounds:
        features = widened(graph, cast(graph, features, TensorProto.FLOAT), again=True)
    else:
        features = cast(graph, features, TensorProto.DOUBLE)
    sums = graph.node(
        "TreeEnsembleRegressor", features, domain="ai.onnx.ml", **_attributes(ensemble)
    )
    return cast(graph, sums, TensorProto.DOUBLE) if ensemble.wide else sums


def whole(graph: GraphBuilder, features: str, columns: Sequence[int], width: int) -> str:
    """Truncate some features to whole numbers, as categories are read; float64."""
    features = cast(graph, features, TensorProto.DOUBLE)
    cut = graph.node(
        "Mul", graph.node("Sign", features), graph.node("Floor", graph.node("Abs", features))
    )
    mask = graph.constant(np.isin(np.arange(width), columns))
    return graph.node("Where", mask, cut, features)


def cast(graph: GraphBuilder, values: str, kind: int) -> str:
    """Add a conversion to an element type."""
    return graph.node("Cast", values, to=int(kind))


def widened(graph: GraphBuilder, values: str, *, again: bool = False) -> str:
    """Add a conversion from float32 to float64.

    Earlier versions of ONNX Runtime remove two conversions in a row: *again* says that the numbers
    were rounded to float32 just before.
    """
    if not again:
        return cast(graph, values, TensorProto.DOUBLE)
    turned = cast(graph, graph.node("Neg", values), TensorProto.DOUBLE)
    return graph.node("Neg", turned)


def divided(graph: GraphBuilder, sums: str, count: int, dtype: Any = np.float64) -> str:
    """Divide sums by the number of trees, after the sum as in libraries, so that ties stay ties."""
    return graph.node("Div", sums, graph.constant(np.array([count], dtype)))


def binary(graph: GraphBuilder, positive: str, dtype: Any = np.float64) -> str:
    """Return the probabilities of both classes from that of the second, [rows, 1] to [rows, 2]."""
    negative = graph.node("Sub", graph.constant(np.array([1], dtype)), positive)
    return graph.node("Concat", negative, positive, axis=1)


def argmax(graph: GraphBuilder, values: str) -> str:
    """Return the index of the largest value of every row, the first among equals."""
    return graph.node("ArgMax", values, axis=1, keepdims=0)


def class_at(graph: GraphBuilder, index: str, classes: Array) -> str:
    """Return the class of every row by its index."""
    return graph.node("Gather", graph.constant(classes), index)


def no_onnx_form(library: str, what: str) -> ValidationFailedError:
    """Return the error for a booster that cannot be written as a graph."""
    return ValidationFailedError(
        f"the {library} model has no ONNX form: it has {what}",
        hint="Train it without, or serve it in another way.",
        kind="convert",
    )


def _attributes(ensemble: Ensemble) -> dict[str, Any]:
    sizes = [len(tree.feature) for tree in ensemble.trees]
    leaf = np.concatenate([tree.yes for tree in ensemble.trees]) < 0
    where = {
        "nodes_treeids": np.repeat(np.arange(len(sizes)), sizes),
        "nodes_nodeids": np.concatenate([np.arange(size) for size in sizes]),
    }
    for name, field in (
        ("nodes_featureids", "feature"),
        ("nodes_truenodeids", "yes"),
        ("nodes_falsenodeids", "no"),
        ("nodes_missing_value_tracks_true", "missing"),
    ):
        values = np.concatenate([getattr(tree, field) for tree in ensemble.trees])
        where[name] = np.where(leaf, 0, values.astype(np.int64))
    mode = "BRANCH_LT" if ensemble.strict else "BRANCH_LEQ"
    equal = np.concatenate(
        [np.zeros(len(t.feature), bool) if t.equal is None else t.equal for t in ensemble.trees]
    )
    weights = [_weights(number, tree) for number, tree in enumerate(ensemble.trees)]
    for place, name in enumerate(("target_treeids", "target_nodeids", "target_ids")):
        where[name] = np.concatenate([part[place] for part in weights])
    floats = {
        "nodes_values": np.where(leaf, 0, np.concatenate([t.threshold for t in ensemble.trees])),
        "target_weights": np.concatenate([part[3] for part in weights]),
    }
    return {
        **{name: values.astype(np.int64).tolist() for name, values in where.items()},
        **_floats(floats, wide=ensemble.wide),
        "nodes_modes": np.where(leaf, "LEAF", np.where(equal, "BRANCH_EQ", mode)).tolist(),
        "n_targets": ensemble.targets,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }


def _floats(values: dict[str, Array], *, wide: bool) -> dict[str, Any]:
    if not wide:
        return {name: array.astype(np.float32).tolist() for name, array in values.items()}
    return {
        f"{name}_as_tensor": numpy_helper.from_array(array.astype(np.float64), name)
        for name, array in values.items()
    }


def _weights(number: int, tree: Tree) -> tuple[Array, Array, Array, Array]:
    """The tree, node, target and value of everything that a leaf adds."""
    kept = (tree.yes < 0)[:, None] & (tree.values != 0)
    kept[(tree.yes < 0) & ~kept.any(axis=1), 0] = True  # a leaf needs one value, even zero
    node, target = np.nonzero(kept)
    return np.full(node.size, number), node, target + tree.first, tree.values[node, target]


class Graph:
    """A new graph with one input."""

    def __init__(self, name: str, kind: int, width: int) -> None:
        self._input = helper.make_tensor_value_info(name, kind, [None, width])
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; see `GraphBuilder`."""
        name = f"value_{len(self._nodes)}"
        node = helper.make_node(kind, list(inputs), [name], domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def constant(self, values: Array) -> str:
        """Add a constant; see `GraphBuilder`."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def build(self, outputs: dict[str, tuple[str, int]], target: OnnxTarget) -> onnx.ModelProto:
        """Return the model."""
        values = []
        for name, (value, kind) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
            values.append(helper.make_tensor_value_info(name, kind, None))
        graph = helper.make_graph(self._nodes, "model", [self._input], values, self._constants)
        opsets = [
            helper.make_opsetid("", target.opset),
            helper.make_opsetid("ai.onnx.ml", ML_OPSET),
        ]
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=target.ir
        )
        return model
