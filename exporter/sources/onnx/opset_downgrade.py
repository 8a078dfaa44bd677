"""Rewrites a file in an older opset and IR version, for a release that reads no newer ones.

Most operators are the same in the older opset except for added types; then only the number changes.
Newer operators that ONNX defines by others, such as Attention or RMSNormalization, are expanded.

Sources: ONNX's operator schemas (`onnx.defs`) of each version; the IR versions' history in
onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import TensorProto, defs, helper, inliner, shape_inference, version_converter

from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget
from exporter.sources.onnx.graphs import (
    all_nodes,
    all_tensors,
    external_tensors,
    graphs_below,
    opsets_of,
)

__all__ = ["downgrade", "downgrade_by_converter", "too_new"]

_ML = "ai.onnx.ml"
# The element types that came with an IR version.
_TYPES = {
    9: ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    10: ("UINT4", "INT4"),
    11: ("FLOAT4E2M1",),
    12: ("FLOAT8E8M0",),
    13: ("UINT2", "INT2"),
}
_MODES = {b"linear": b"bilinear", b"cubic": b"bicubic"}
_MOST_ROUNDS = 4  # a function's body may call another function


def too_new(opsets: Mapping[str, int], ir: int, target: OnnxTarget) -> bool:
    """Whether a release cannot read a file of these versions."""
    return ir > target.max_ir or any(
        opsets.get(domain, 0) > newest for domain, newest in _limits(target).items()
    )


def downgrade(proto: onnx.ModelProto, *, target: OnnxTarget) -> onnx.ModelProto:
    """Return a file in the newest opset and IR version that a release reads.

    Raises:
        ValidationFailedError: An operator or a type has no older form; it is named.
    """
    limits = _limits(target)
    opsets = opsets_of(proto)
    older = {d: newest for d, newest in limits.items() if opsets.get(d, 0) > newest}
    if older:
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        if opsets.get("", 0) >= 20:
            _rename_modes(proto, older)
        for _ in range(_MOST_ROUNDS):
            foreign = _without_older_form(proto, older)
            if not foreign or not _has_definition(foreign):
                break
            proto = _expanded(proto, foreign)
        if foreign := _without_older_form(proto, older):
            node = foreign[0]
            raise _no_older_form(f"the operator {node.op_type}", node.domain, opsets, target)
        _relabel(proto, older)
    _downgrade_ir(proto, target)
    return proto


def downgrade_by_converter(proto: onnx.ModelProto, *, target: OnnxTarget) -> onnx.ModelProto:
    """Return the same by ONNX's own converter, which handles operators whose attributes changed.

    Raises:
        ValidationFailedError: It cannot, or the file has external data.
    """
    if any(True for _ in external_tensors(proto)):
        raise ValidationFailedError(
            "ONNX's converter reads no constants from external data",
            hint="Log the model in an older opset.",
            kind="target",
        )
    converted = version_converter.convert_version(proto, target.max_opset)
    _downgrade_ir(converted, target)
    return converted


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _limits(target: OnnxTarget) -> dict[str, int]:
    rows = [row for row in helper.VERSION_TABLE if row[2] <= target.max_opset]
    return {"": target.max_opset, _ML: max(int(row[3]) for row in rows)}


def _without_older_form(proto: onnx.ModelProto, older: dict[str, int]) -> list[onnx.NodeProto]:
    opsets = opsets_of(proto)
    return [
        node
        for node in all_nodes(proto)
        if (domain := _domain(node.domain)) in older
        and not _fits(node, opsets[domain], older[domain])
    ]


def _fits(node: onnx.NodeProto, now: int, then: int) -> bool:
    """Whether a node may be read by an older version of its operator.

    It may where that takes the same inputs and attributes with the same defaults. Changed types and
    semantics are left to the comparison with the reference.
    """
    domain = _domain(node.domain)
    try:
        new = defs.get_schema(node.op_type, now, domain)
        old = defs.get_schema(node.op_type, then, domain)
    except defs.SchemaError:
        return False
    if new.since_version == old.since_version:
        return True
    given = {a.name: a for a in node.attribute}
    new_ones = [a for name, a in given.items() if name not in old.attributes]
    return (
        not old.deprecated
        and all(a.SerializeToString() == _default(new, a.name) for a in new_ones)
        and all(
            _default(old, name) == _default(new, name)
            for name in set(new.attributes) & set(old.attributes) - set(given)
        )
        and old.min_input <= len(node.input) <= old.max_input
        and old.min_output <= len(node.output) <= old.max_output
    )


def _relabel(proto: onnx.ModelProto, older: dict[str, int]) -> None:
    """Write the older versions, and drop attributes that they do not have."""
    for node in all_nodes(proto):
        domain = _domain(node.domain)
        if domain in older:
            known = defs.get_schema(node.op_type, older[domain], domain).attributes
            kept = [attribute for attribute in node.attribute if attribute.name in known]
            del node.attribute[:]
            node.attribute.extend(kept)
    for opset in proto.opset_import:
        opset.version = min(opset.version, older.get(_domain(opset.domain), opset.version))


def _rename_modes(proto: onnx.ModelProto, older: dict[str, int]) -> None:
    """Call the modes of GridSample as they were called before opset 20."""
    if older.get("", 20) >= 20:
        return
    for node in all_nodes(proto):
        if node.op_type == "GridSample" and not node.domain:
            held = next((a for a in node.attribute if a.name == "mode"), None)
            if held is None:
                node.attribute.append(helper.make_attribute("mode", "bilinear"))
            elif held.s in _MODES:
                held.s = _MODES[held.s]


def _default(schema: Any, name: str) -> bytes:
    value: bytes = schema.attributes[name].default_value.SerializeToString()
    return value


def _has_definition(nodes: list[onnx.NodeProto]) -> bool:
    """Whether ONNX defines any of these operators by others."""
    return any(
        schema.has_function or schema.has_context_dependent_function
        for schema in (defs.get_schema(node.op_type, domain=_domain(node.domain)) for node in nodes)
    )


def _expanded(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    opsets = opsets_of(proto)
    for node in nodes:
        # The definitions refer to attributes, which have no defaults there.
        schema = defs.get_schema(node.op_type, opsets[_domain(node.domain)], _domain(node.domain))
        given = {attribute.name for attribute in node.attribute}
        node.attribute.extend(
            attribute.default_value
            for name, attribute in schema.attributes.items()
            if name not in given and attribute.default_value.name
        )
    typed = shape_inference.infer_shapes(proto)
    for graph in graphs_below(typed.graph):
        known = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
        graph.value_info.extend(
            helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
            for constant in graph.initializer
            if constant.name not in known
        )
    operators = sorted({(node.domain, node.op_type) for node in nodes})
    return inliner.inline_selected_functions(
        typed, operators, exclude=False, inline_schema_functions=True
    )


def _downgrade_ir(proto: onnx.ModelProto, target: OnnxTarget) -> None:
    if proto.ir_version <= target.max_ir:
        return
    used = {tensor.data_type for tensor in all_tensors(proto)}
    used |= {
        value.type.tensor_type.elem_type
        for graph in graphs_below(proto.graph)
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    used |= {
        attribute.i
        for node in all_nodes(proto)
        for attribute in node.attribute
        if node.op_type == "Cast" and attribute.name == "to"
    }
    for version, names in _TYPES.items():
        for name in names:
            if version > target.max_ir and TensorProto.DataType.Value(name) in used:
                raise _no_older_form(f"the type {name}", "", opsets_of(proto), target)
    proto.ir_version = target.max_ir


def _no_older_form(
    what: str, domain: str, opsets: dict[str, int], target: OnnxTarget
) -> ValidationFailedError:
    newest = _limits(target)[_domain(domain)]
    return ValidationFailedError(
        f"the ONNX model has opset {opsets.get(_domain(domain), 0)} of {domain or 'ai.onnx'}; the "
        f"release reads at most opset {newest} with IR version {target.max_ir}, in which {what} "
        "has no form",
        hint="Export for a newer release (--triton-release), or convert the model in an older "
        "opset and log it again.",
        kind="target",
    )
