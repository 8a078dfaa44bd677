"""ONNX models, made by hand, and the configurations that go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Sequence

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "STRING": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def tensor(name: str, shape: Any = ("batch", 4), datatype: str = "FP32") -> Any:
    return helper.make_tensor_value_info(name, DATATYPES[datatype], shape)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    initializers: Sequence[Any] = (),
    opset: int = 17,
    ir: int = 8,
    domains: Sequence[tuple[str, int]] = (),
) -> ModelProto:
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*pair) for pair in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


def identity(
    datatype: str = "FP32",
    shape: Any = ("batch", 4),
    output_shape: Any = None,
    **options: Any,
) -> ModelProto:
    """``y = x``."""
    return model(
        [node("Identity", ["x"], ["y"])],
        [tensor("x", shape, datatype)],
        [tensor("y", shape if output_shape is None else output_shape, datatype)],
        **options,
    )


def add(shape: Any = ("batch", 4)) -> ModelProto:
    """``y = a + b``, ``z = a - b``."""
    return model(
        [node("Add", ["a", "b"], ["y"]), node("Sub", ["a", "b"], ["z"])],
        [tensor("a", shape), tensor("b", shape)],
        [tensor("y", shape), tensor("z", shape)],
    )


def entry(name: str, dims: Sequence[int], datatype: str = "FP32", more: str = "") -> str:
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: {list(dims)} {more} }}'


def config(
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    max_batch_size: int = 8,
    more: str = "",
) -> str:
    """A complete configuration, as text."""
    return "\n".join(
        [
            'backend: "onnxruntime"',
            f"max_batch_size: {max_batch_size}",
            *(f"input {given}" for given in inputs),
            *(f"output {given}" for given in outputs),
            "instance_group { kind: KIND_CPU count: 1 }" if "instance_group" not in more else "",
            more,
        ]
    )


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
