"""Names the operators of a torch model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

__all__ = ["operators_of"]

_CASTS = frozenset({"aten.to", "aten._to_copy", "aten.type_as"})


def operators_of(model: ExportedProgram | torch.nn.Module) -> frozenset[str]:
    """Return the operators of a program, or of the scripts in a module, such as ``aten.atan2``.

    The graphs inside a program's nodes count as well. A cast is one only where it makes whole
    numbers of others, and a division that rounds is ``aten.floor_divide`` as well.
    """
    if isinstance(model, ExportedProgram):
        return frozenset(_of_program(model))
    return frozenset(_of_scripts(model))


def _of_program(program: ExportedProgram) -> Iterator[str]:
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
                    continue
                name = node.target._schema.name.replace("::", ".")  # noqa: SLF001
                if name == "aten.div" and node.kwargs.get("rounding_mode"):
                    yield "aten.floor_divide"
                if name not in _CASTS or _makes_whole_numbers(node):
                    yield name


def _makes_whole_numbers(node: Any) -> bool:
    values = [before.meta.get("val") for before in (*node.all_input_nodes[:1], node)]
    floating = [isinstance(v, torch.Tensor) and v.dtype.is_floating_point for v in values]
    return floating == [True, False]


def _of_scripts(module: torch.nn.Module) -> Iterator[str]:
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule) and hasattr(part, "inlined_graph"):
            for node in _nodes(part.inlined_graph):
                yield node.kind().replace("::", ".")


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
