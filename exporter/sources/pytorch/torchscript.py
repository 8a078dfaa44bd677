"""Scripts: modules compiled from their source, which keep branches and loops."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from exporter.errors import ValidationFailedError, first_line
from exporter.sources.pytorch.call_convention import PositionalModule

__all__ = ["branches_on_values", "compile_script", "trace_script"]

# They read a number or a truth value from a tensor.
_READS = frozenset(
    f"aten::{name}"
    for name in (
        *("Bool", "Int", "Float", "item", "is_nonzero", "tolist"),
        *("IntImplicit", "FloatImplicit", "ScalarImplicit"),
    )
)


def compile_script(module: torch.nn.Module) -> torch.jit.ScriptModule:
    """Return a module compiled from its source; one that is a script already as it is.

    Raises:
        ValidationFailedError: TorchScript does not take its source.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return module
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.jit.script(module)
    except Exception as error:
        raise ValidationFailedError(
            f"torch.jit.script does not take forward(): {first_line(error)}",
            hint="Write what depends on values with torch.where or torch.cond.",
            kind="convert",
        ) from error


def trace_script(
    module: PositionalModule, example: Sequence[torch.Tensor]
) -> torch.jit.ScriptModule:
    """Return a script that takes and returns tensors by position, where the logged one has dicts.

    A trace around a script keeps what the script decides.
    """
    given = tuple(tensor.clone() for tensor in example)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(module, given, strict=False, check_trace=False)


def branches_on_values(script: torch.jit.ScriptModule) -> bool:
    """Whether a script reads a tensor's value to choose a branch for all rows."""
    return any(
        node.kind() in _READS and any(_is_tensor(value) for value in node.inputs())
        for node in _nodes(script.inlined_graph)
    )


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _is_tensor(value: Any) -> bool:
    return value.type().isSubtypeOf(torch._C.TensorType.get())  # type: ignore[no-any-return]  # noqa: SLF001
