"""Ensembles of decision trees as nodes of a graph, with the comparisons of the library they are of.

A tree turns on the last digit of a threshold. Converters write thresholds as float32 and compare
what was rounded otherwise than the library rounds it, which no drawn input shows: only values that
lie on a threshold do, such as prices in cents, whole numbers and times. So thresholds and leaves
are written in float64 here, and features are rounded as the library does before it compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from exporter.arrays import Array
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
    "scores",
    "whole",
    "widened",
]

ML_OPSET = 3  # of ai.onnx.ml: the first with float64 in trees, and what every release reads


class GraphBuilder(Protocol):
    """Takes nodes and constants of a graph."""

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
        yes: The node to go on with where it is less; -1 for a leaf.
        no: The node to go on with otherwise.
        missing: Whether to go on with ``yes`` where the feature is NaN.
        values: What a leaf adds to the targets from the first on, of shape [nodes, targets].
        first: The first target.
        equal: Whether a node asks if it is equal, not less; None where none does.
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

    The operator gives float32 whatever it computes in.
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
    """Cut off what some features have behind the point, as categories are read; float64."""
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

    Args:
        graph: Where to add it.
        values: The float32 numbers.
        again: Whether they were rounded to float32 just before: earlier versions of ONNX Runtime
            take two conversions in a row for none.
    """
    if not again:
        return cast(graph, values, TensorProto.DOUBLE)
    turned = cast(graph, graph.node("Neg", values), TensorProto.DOUBLE)
    return graph.node("Neg", turned)


def divided(graph: GraphBuilder, sums: str, count: int, dtype: Any = np.float64) -> str:
    """Divide sums by a number of trees, after the sum as libraries do: ties stay ties."""
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
    kept[(tree.yes < 0) & ~kept.any(axis=1), 0] = True  # a leaf of nothing needs one all the same
    node, target = np.nonzero(kept)
    return np.full(node.size, number), node, target + tree.first, tree.values[node, target]


class Graph:
    """A graph of its own, with one input.

    Args:
        name: The input's name.
        kind: Its element type.
        width: Its columns.
    """

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

    def finished(self, outputs: dict[str, tuple[str, int]], target: OnnxTarget) -> onnx.ModelProto:
        """Return the model.

        Args:
            outputs: The value and the element type of every output, by its name.
            target: What the file is to be.
        """
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
