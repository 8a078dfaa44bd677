"""Reads from an operator's ONNX schema which inputs take float16 to make float16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import NodeProto, TensorProto

from exporter.sources.onnx.graphs import inner_graphs

__all__ = ["moves_rows", "takes_halves"]

FLOAT = TensorProto.FLOAT
_HALF = "tensor(float16)"
# Their output types do not depend on inputs.
_MAKERS = frozenset({"Cast", "ConstantOfShape"})
# ONNX Runtime's kernels expect scales in float32.
_NEVER = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def takes_halves(
    node: NodeProto, opset: int, type_of: Callable[[str], int | None]
) -> frozenset[int] | None:
    """Return the inputs that a node takes as halves to make halves; None where it cannot.

    A schema names types by variables: an output is a half where its variable is that of an input
    that can be one. Other inputs may have to stay float32, such as the scales of ``Resize``.
    """
    if node.domain not in {"", "ai.onnx"} or node.op_type in _NEVER or list(inner_graphs(node)):
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    if not all(formal.is_homogeneous for formal in schema.inputs):
        return None

    def formal(names: Sequence[str], formals: Sequence[Any]) -> list[tuple[int, str, int | None]]:
        """Return index, type variable and type of every tensor; the last formal may repeat."""
        return [
            (index, formals[min(index, len(formals) - 1)].type_str, type_of(name))
            for index, name in enumerate(names)
            if name
        ]

    given, made = formal(node.input, schema.inputs), formal(node.output, schema.outputs)
    able = {c.type_param_str for c in schema.type_constraints if _HALF in c.allowed_type_strs}
    takes = {index: name for index, name, kind in given if kind == FLOAT and name in able}
    halves = set(takes.values())
    unknown = {name for _, name, kind in (*given, *made) if kind is None}
    floats = {name for _, name, kind in made if kind == FLOAT}
    stays = bool(floats - halves) and node.op_type not in _MAKERS
    return None if stays or unknown & halves or not floats else frozenset(takes)


def moves_rows(node: NodeProto) -> bool:
    """Whether a node moves the first axis behind others, as the last one or the one before.

    ONNX Runtime makes this and a multiplication behind it one node. Where it gives halves, releases
    from 1.27 on (seen up to 1.32) crash when they load the model on a CPU.
    """
    if node.op_type != "Transpose":
        return False
    order = [axis for attribute in node.attribute for axis in attribute.ints]
    others = [axis for axis in order if axis != 0]
    return len(order) > 2 and others == sorted(others) and order.index(0) >= len(order) - 2
