"""Runs an exported program in float64, to see how far float32 rounding alone carries it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from torch.fx.node import Argument, Target

__all__ = ["run_in_float64"]


def run_in_float64(program: ExportedProgram, inputs: Sequence[torch.Tensor]) -> Any:
    """Return the program's flat outputs with every float32 number replaced by a float64 one.

    Weights are widened where they are used and dropped again, so the extra memory is that of the
    largest layer. Casts to half precision stay: they belong to the model.

    Raises:
        Exception: Whatever an operator raises that has no float64 form.
    """
    user_inputs = iter(inputs)
    arguments = [
        next(user_inputs) if spec.kind is InputKind.USER_INPUT else _held(program, spec.target)
        for spec in program.graph_signature.input_specs
    ]
    with torch.no_grad():
        return _Widening(program.graph_module).run(*arguments)


class _Widening(Interpreter):  # type: ignore[misc]
    def call_function(
        self, target: Target, args: tuple[Argument, ...], kwargs: dict[str, Any]
    ) -> Any:
        if target is torch.ops.aten.embedding.default:
            # A look-up rounds nothing: widen the rows found, not the whole table.
            return _widen(super().call_function(target, args, kwargs))
        return super().call_function(
            target, pytree.tree_map(_widen, args), pytree.tree_map(_widen, kwargs)
        )


def _widen(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype is torch.float32:
        return value.double()
    return torch.float64 if value is torch.float32 else value


def _held(program: ExportedProgram, name: str | None) -> Any:
    if name in program.state_dict:
        return program.state_dict[name]
    return program.constants[str(name)]
