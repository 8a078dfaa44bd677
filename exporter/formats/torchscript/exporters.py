"""Exporters from a torch module to a script that takes and returns tensors by position."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporter.formats.torchscript.fx_to_script import script_of_graph
from exporter.interface import Interface

__all__ = ["script_exporters"]

ScriptExporter = tuple[str, "Callable[[], torch.jit.ScriptModule]"]
"""The exporter's name in the manifest, and a function that raises whatever torch does."""


def script_exporters(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    interface: Interface,
    *,
    branches: bool,
) -> Sequence[ScriptExporter]:
    """Return the exporters of a module, the best one first.

    The module takes the interface's inputs by position, such as *example*. It *branches* where it
    branches on values, of which a trace keeps one branch for all.
    """
    if isinstance(module, torch.fx.GraphModule):
        # A trace of it would fix its sizes, and its loops.
        return (("torch.export graph", partial(script_of_graph, module, interface)),)
    traced = ("torch.jit.trace", partial(_traced, module, example, interface))
    if isinstance(module, torch.jit.ScriptModule):
        # A trace around a script keeps what the script decides.
        return (("as logged", lambda: module),) if _is_flat(module, interface) else (traced,)
    scripted = ("torch.jit.script", partial(_scripted, module, example, interface))
    if branches:
        return (scripted,)
    return (
        traced,
        scripted,
        # Through Python's bytecode, which sees NumPy inside.
        ("torch.export strict graph", partial(_exported, module, example, interface)),
    )


class _Flat(torch.nn.Module):  # type: ignore[misc]
    """Takes and returns what a server sends: tensors one by one, with one axis at least."""

    def __init__(self, module: torch.nn.Module, interface: Interface) -> None:
        super().__init__()
        self.module = module
        self.training = module.training
        self._bare = [not tensor.axes for tensor in interface.inputs]
        self._count = len(interface.outputs)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Return one tensor, or a tuple of several."""
        given = (t[0] if bare else t for t, bare in zip(tensors, self._bare, strict=True))
        leaves = [leaf for leaf in pytree.tree_leaves(self.module(*given)) if leaf is not None]
        if len(leaves) != self._count:
            raise ValueError(f"the module returns {len(leaves)} tensors instead of {self._count}")
        flat = tuple(leaf if leaf.dim() else leaf.unsqueeze(0) for leaf in leaves)
        return flat if len(flat) > 1 else flat[0]


def _traced(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], interface: Interface
) -> torch.jit.ScriptModule:
    flat = _Flat(module, interface)
    with torch.no_grad():
        script = torch.jit.trace(flat, _given(example), strict=False, check_trace=False)
    _let_go_of_the_cpu(script)
    return script


def _let_go_of_the_cpu(script: torch.jit.ScriptModule) -> None:
    """Have a trace make its tensors on the device of its inputs, not of its example."""
    for module in script.modules():
        for name in module._c._method_names():  # noqa: SLF001
            graph = module._c._get_method(name).graph  # noqa: SLF001
            given = [v for v in graph.inputs() if v.type().kind() == "TensorType"]
            for node in [*graph.nodes()] if given else []:
                if node.kind() != "prim::Constant":
                    continue
                constant = node.output()
                if constant.type().kind() != "DeviceObjType" or constant.toIValue().type != "cpu":
                    continue
                device = graph.create("prim::device", given[:1], 1)
                device.output().setType(constant.type())
                device.insertBefore(node)
                constant.replaceAllUsesWith(device.output())
                node.destroy()


def _scripted(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], interface: Interface
) -> torch.jit.ScriptModule:
    """Script a module, or the one inside an adapter."""
    inner = getattr(module, "module", None)
    if not isinstance(inner, torch.nn.Module):
        return _traced(torch.jit.script(module), example, interface)
    adapter = copy.copy(module)
    adapter._modules = {**module._modules, "module": torch.jit.script(inner)}  # noqa: SLF001
    return _traced(adapter, example, interface)


def _exported(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], interface: Interface
) -> torch.jit.ScriptModule:
    sizes = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(t.axes) if isinstance(size, str)}
        for t in interface.inputs
    )
    with torch.no_grad():
        program = torch.export.export(
            _Flat(module, interface),
            _given(example),
            dynamic_shapes={"tensors": sizes},
            strict=True,
        )
    return script_of_graph(program.module(), _as_flat(interface))


def _as_flat(interface: Interface) -> Interface:
    """The interface of `_Flat`."""
    inputs, outputs = (
        tuple(replace(tensor, axes=tensor.axes or (1,)) for tensor in tensors)
        for tensors in (interface.inputs, interface.outputs)
    )
    return Interface(inputs, outputs)


def _given(example: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    # Copies: a module may write into its arguments.
    return tuple(t.clone() if t.dim() else t.clone().unsqueeze(0) for t in example)


def _is_flat(script: torch.jit.ScriptModule, interface: Interface) -> bool:
    """Whether a server can call a script directly."""
    schema = script.forward.schema
    tensor = torch._C.TensorType.get()  # noqa: SLF001
    given = [argument.type for argument in schema.arguments[1:]]
    (returned,) = (value.type for value in schema.returns)
    single = len(interface.outputs) == 1 and returned == tensor
    several = returned.kind() == "TupleType" and returned.elements() == [tensor] * len(
        interface.outputs
    )
    scalars = any(not t.axes for t in (*interface.inputs, *interface.outputs))
    return given == [tensor] * len(interface.inputs) and (single or several) and not scalars
