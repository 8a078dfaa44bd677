"""Walks through an ONNX file, including the graphs inside its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx.external_data_helper import uses_external_data

__all__ = [
    "all_nodes",
    "all_tensors",
    "external_tensors",
    "graphs_below",
    "inner_graphs",
    "nodes_below",
    "opsets_of",
]


def all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a file and of its functions."""
    yield from nodes_below(proto.graph.node)
    for function in proto.functions:
        yield from nodes_below(function.node)


def nodes_below(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes with those of the graphs inside them."""
    for node in nodes:
        yield node
        for graph in inner_graphs(node):
            yield from nodes_below(graph.node)


def graphs_below(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph with those inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs_below(inner)


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a file, in the order of its graph."""
    for graph in graphs_below(proto.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in all_nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant whose content is in another file."""
    yield from filter(uses_external_data, all_tensors(proto))


def opsets_of(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the version of every operator set of a file; ``ai.onnx`` is the empty name."""
    return {
        "" if opset.domain == "ai.onnx" else opset.domain: opset.version
        for opset in proto.opset_import
    }


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: branches, or the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
