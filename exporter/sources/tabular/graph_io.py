"""Wraps a converted graph in the served interface: names, dtypes and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from exporter.arrays import Array
from exporter.interface import Tensor
from triton_client.types import numpy_dtype

__all__ = ["Result", "element_type", "wrap_graph"]

# A prefix, so that no name of the converted graph equals a served one.
_INSIDE = "inside/"


@dataclass(frozen=True, slots=True)
class Result:
    """One output of a graph, and the tensor to serve.

    Attributes:
        source: The output's name in the graph.
        tensor: The served tensor.
        classes: The class of each column, to serve that of the largest; None for the columns.
    """

    source: str
    tensor: Tensor
    classes: Array | None = None


def element_type(datatype: str) -> int:
    """Return ONNX's number of a wire datatype."""
    if datatype == "BYTES":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(numpy_dtype(datatype))))


def wrap_graph(
    proto: onnx.ModelProto,
    inputs: Sequence[Tensor],
    taken: Sequence[tuple[str, int]],
    results: Sequence[Result],
) -> onnx.ModelProto:
    """Return a graph of the served inputs and outputs around a converted one.

    Args:
        proto: The converted graph.
        inputs: The served inputs.
        taken: The graph's own inputs with their element types: one for each served one, or one for
            all of them side by side.
        results: Its outputs.
    """
    # Functions keep their names, by which inner graphs and other functions call them.
    graph = compose.add_prefix(proto, _INSIDE, rename_functions=False).graph
    taken = [(f"{_INSIDE}{name}", kind) for name, kind in taken]
    before = []
    casts = []
    for number, tensor in enumerate(inputs):
        name, kind = (
            taken[number] if len(taken) == len(inputs) else (f"border_{number}", taken[0][1])
        )
        casts.append(name)
        before.append(_cast(tensor.name, name, element_type(tensor.datatype), kind))
    if len(taken) != len(inputs):
        before.append(helper.make_node("Concat", casts, [taken[0][0]], axis=1))
    _name_inner_graphs(graph)
    after = []
    for result in results:
        after += _after(graph, result)
    nodes = [*before, *graph.node, *after]
    whole = helper.make_graph(
        nodes,
        "model",
        [_value(tensor) for tensor in inputs],
        [_value(result.tensor) for result in results],
        list(graph.initializer),
    )
    whole.initializer.extend(_constants(results))
    # Converters keep them in a set, whose order is another one in every process.
    opsets = sorted(proto.opset_import, key=lambda opset: opset.domain)
    model: onnx.ModelProto = helper.make_model(
        whole, opset_imports=opsets, ir_version=proto.ir_version
    )
    model.functions.extend(proto.functions)
    return model


def _name_inner_graphs(graph: onnx.GraphProto) -> None:
    """Replace the random names of inner graphs: the same model gives the same file."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    inner.name = "inner"
                    _name_inner_graphs(inner)


def _cast(source: str, target: str, found: int, wanted: int) -> onnx.NodeProto:
    if found == wanted:
        return helper.make_node("Identity", [source], [target])
    return helper.make_node("Cast", [source], [target], to=wanted)


def _after(graph: onnx.GraphProto, result: Result) -> list[onnx.NodeProto]:
    source = f"{_INSIDE}{result.source}"
    (value,) = (value for value in graph.output if value.name == source)
    found = value.type.tensor_type.elem_type
    name, tensor = result.tensor.name, result.tensor
    kept, shaped = f"{name}_kept", f"{name}_shaped"
    nodes = []
    if result.classes is not None:
        nodes.append(helper.make_node("ArgMax", [source], [f"{name}_best"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Gather", [f"{name}_classes", f"{name}_best"], [kept]))
        source = kept
        found = element_type(tensor.datatype)
    # Converters disagree on whether a number per row is a vector or a matrix of one column.
    nodes.append(helper.make_node("Reshape", [source, f"{name}_shape"], [shaped]))
    nodes.append(_cast(shaped, name, found, element_type(tensor.datatype)))
    return nodes


def _constants(results: Sequence[Result]) -> list[onnx.TensorProto]:
    constants = []
    for result in results:
        name = result.tensor.name
        sizes = [-1, *(int(size) for size in result.tensor.axes[1:])]
        constants.append(numpy_helper.from_array(np.array(sizes, np.int64), f"{name}_shape"))
        if result.classes is not None:
            constants.append(numpy_helper.from_array(result.classes, f"{name}_classes"))
    return constants


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        tensor.name, element_type(tensor.datatype), list(tensor.axes)
    )
