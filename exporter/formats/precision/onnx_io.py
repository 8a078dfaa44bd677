"""Reads an ONNX file with unique node names and inferred types, and writes one."""

from __future__ import annotations

from copy import deepcopy
from itertools import count
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, inliner
from onnx.external_data_helper import load_external_data_for_model

from exporter.sources.base import EXTERNAL_DATA_BYTES
from exporter.sources.onnx.graphs import graphs_below, nodes_below, opsets_of

__all__ = ["fresh_name", "opset_of", "read", "size", "types_of", "write"]

_VALUES = {
    **dict.fromkeys(("value_float", "value_floats"), np.float32),
    **dict.fromkeys(("value_int", "value_ints"), np.int64),
}


def read(path: Path) -> ModelProto:
    """Return a model with its weights, every node under a name of its own, and inferred types.

    Functions are inlined, and constants are initializers.
    """
    model = onnx.load(path, load_external_data=False)
    if model.functions:
        model = inliner.inline_local_functions(model)
    # Before the weights are loaded: inference takes a copy of everything.
    model = onnx.shape_inference.infer_shapes(model)
    load_external_data_for_model(model, str(path.parent))
    taken: set[str] = set()
    for node in nodes_below(model.graph.node):
        node.name = fresh_name(node.name or node.op_type, taken)
    for graph in reversed(list(graphs_below(model.graph))):
        _move_constants(graph)
    return model


def write(model: ModelProto, path: Path) -> None:
    """Write a model, with large weights in a file of their own; the model is consumed.

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
    graphs = graphs_below(model.graph)
    return sum(len(tensor.raw_data) for graph in graphs for tensor in graph.initializer)


def opset_of(model: ModelProto) -> int:
    """Return the opset of ``ai.onnx``."""
    return opsets_of(model).get("", 1)


def types_of(graph: GraphProto) -> dict[str, int]:
    """Return the element type of every tensor of a graph, as far as it is known."""
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.HasField("tensor_type")
    }
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def fresh_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, which it is from then on."""
    found, numbers = name, count(1)
    while found in taken:
        found = f"{name}_{next(numbers)}"
    taken.add(found)
    return found


def _move_constants(graph: GraphProto) -> None:
    kept = []
    for node in graph.node:
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
        if attribute.name == "value":
            tensor = deepcopy(attribute.t)
        elif attribute.name in _VALUES:
            value = onnx.helper.get_attribute_value(attribute)
            tensor = onnx.numpy_helper.from_array(np.array(value, _VALUES[attribute.name]))
        else:
            continue
        tensor.name = node.output[0]
        return tensor
    return None
