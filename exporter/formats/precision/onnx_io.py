"""Reads an ONNX file so that nodes can be told apart and types are known, and writes one."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    inliner,
    shape_inference,
)
from onnx.external_data_helper import load_external_data_for_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["inner_graphs", "opset_of", "read", "size", "types_of", "write"]

# As where a source writes its weights beside the graph.
EXTERNAL_DATA_BYTES = 128 * 1024 * 1024
_STANDARD = frozenset({"", "ai.onnx"})
_VALUES = {
    "value_float": TensorProto.FLOAT,
    "value_floats": TensorProto.FLOAT,
    "value_int": TensorProto.INT64,
    "value_ints": TensorProto.INT64,
}


def read(path: Path) -> ModelProto:
    """Return a model with its weights, every node under a name of its own, and inferred types.

    Functions are written out where they are called, and constants are initializers.
    """
    model = onnx.load(path, load_external_data=False)
    if model.functions:
        model = inliner.inline_local_functions(model)
    # Before the weights are loaded: inference takes a copy of everything.
    model = shape_inference.infer_shapes(model)
    load_external_data_for_model(model, str(path.parent))
    _name(model.graph, set())
    _keep_constants(model.graph)
    return model


def write(model: ModelProto, path: Path) -> None:
    """Write a model, with its weights beside it where they are many; the model is used up.

    External data that an earlier file of this name had are removed.
    """
    for file in path.parent.glob(f"{path.name}.data*"):
        file.unlink()
    onnx.save(
        model,
        path,
        save_as_external_data=size(model) > EXTERNAL_DATA_BYTES,
        location=f"{path.name}.data",
    )


def size(model: ModelProto) -> int:
    """Return the bytes of a model's weights."""
    return sum(len(tensor.raw_data) for tensor in _initializers(model.graph))


def opset_of(model: ModelProto) -> int:
    """Return the opset of ``ai.onnx``."""
    return max((o.version for o in model.opset_import if o.domain in _STANDARD), default=1)


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the bodies of a node: branches, or what is repeated."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def types_of(graph: GraphProto) -> dict[str, int]:
    """Return the element type of every tensor of a graph, as far as it is known."""
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.HasField("tensor_type")
    }
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from _initializers(inner)


def _name(graph: GraphProto, taken: set[str]) -> None:
    for node in graph.node:
        name = node.name or node.op_type
        numbers = count(1)
        while name in taken:
            name = f"{node.name or node.op_type}_{next(numbers)}"
        taken.add(name)
        node.name = name
        for inner in inner_graphs(node):
            _name(inner, taken)


def _keep_constants(graph: GraphProto) -> None:
    kept = []
    for node in graph.node:
        for inner in inner_graphs(node):
            _keep_constants(inner)
        tensor = _constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: NodeProto) -> TensorProto | None:
    """Return the tensor of a constant; None where it is of strings, or sparse."""
    for attribute in node.attribute:
        tensor = TensorProto()
        if attribute.name == "value":
            tensor.CopyFrom(attribute.t)
        elif attribute.name in _VALUES:
            value = helper.get_attribute_value(attribute)
            dims = [len(value)] if attribute.name.endswith("s") else []
            values = value if dims else [value]
            tensor = helper.make_tensor("", _VALUES[attribute.name], dims, values)
        else:
            continue
        tensor.name = node.output[0]
        return tensor
    return None
