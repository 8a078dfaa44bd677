"""Reads from an operator's ONNX schema which inputs take float16 to make float16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import onnx
from onnx import NodeProto, TensorProto

from exporter.sources.onnx.graphs import inner_graphs

if TYPE_CHECKING:
    TypeOf = Callable[[str], int | None]

__all__ = ["moves_rows", "takes_halves"]

FLOAT = TensorProto.FLOAT
_HALF = "tensor(float16)"
# Their output types do not depend on inputs.
_MAKERS = frozenset({"Cast", "ConstantOfShape"})
# ONNX Runtime's kernels expect scales in float32.
_NEVER = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def takes_halves(node: NodeProto, opset: int, type_of: TypeOf) -> frozenset[int] | None:
    """Return the inputs that a node takes as halves to make halves; None where it cannot.

    A schema names types by variables: an output is a half where its variable is that of an input
    that can be one. Other inputs may have to stay float32, such as the scales of ``Resize``.
    """
    schema = _schema(node, opset)
    if schema is None:
        return None
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    takes, halves, unknown = set(), set(), set()
    for index, name, variable in _formal(node.input, schema.inputs):
        found = type_of(name)
        if found is None:
            unknown.add(variable)
        elif found == FLOAT and _HALF in allowed.get(variable, ()):
            takes.add(index)
            halves.add(variable)
    gives = [
        (type_of(name), variable) for _, name, variable in _formal(node.output, schema.outputs)
    ]
    makes = node.op_type in _MAKERS
    stays = any(
        found == FLOAT and variable not in halves and not makes for found, variable in gives
    )
    unknown |= {variable for found, variable in gives if found is None}
    if stays or unknown & halves or all(found != FLOAT for found, _ in gives):
        return None
    return frozenset(takes)


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


def _schema(node: NodeProto, opset: int) -> Any:
    if node.domain not in {"", "ai.onnx"} or node.op_type in _NEVER:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    uniform = all(formal.is_homogeneous for formal in schema.inputs)
    return schema if uniform and not list(inner_graphs(node)) else None


def _formal(names: Sequence[str], formals: Sequence[Any]) -> Iterator[tuple[int, str, str]]:
    """Yield index, name and type variable of every tensor; the last parameter may repeat."""
    for index, name in enumerate(names):
        if name:
            yield index, name, formals[min(index, len(formals) - 1)].type_str
