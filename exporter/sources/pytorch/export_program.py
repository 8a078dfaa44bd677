"""Exports a module as programs with variable sizes, in both of torch's modes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from exporter.errors import first_line
from exporter.interface import Tensor
from exporter.sources.pytorch.decompositions import decompose

__all__ = ["arguments_of", "export_programs", "sizes_beyond"]

_DETECT = "_detect_is_causal_mask"
# Torch's ranges begin here, whatever forward() does.
_SMALLEST = 2
# Inputs of a larger size cost more than they show.
_LARGEST = 8192


def export_programs(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], inputs: Sequence[Tensor]
) -> tuple[list[ExportedProgram], str]:
    """Return the programs of a module, the best one first, and why there are none.

    The reason is empty unless torch refuses every program because of a branch or a loop that
    depends on values, of which a trace would keep one path for all.
    """
    sizes = tuple(
        {
            axis: torch.export.Dim.AUTO
            for axis, size in enumerate(tensor.axes)
            if isinstance(size, str)
        }
        for tensor in inputs
    )
    programs, dependent = [], ""
    # Strict mode reads the bytecode: it sees NumPy and guards on values.
    for strict in (False, True):
        try:
            with _plainly():
                program = torch.export.export(
                    module, example, dynamic_shapes={"tensors": sizes}, strict=strict
                )
                programs.append(decompose(program))
        except Exception as error:  # noqa: BLE001 - another way may do it
            text = str(error)
            if "data-dependent" in text or "Dynamic control flow" in text:
                dependent = dependent or first_line(error)
    return programs, "" if programs else dependent


def arguments_of(program: ExportedProgram, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """Return the arguments of a program's graph: inputs, and the weights that it holds."""
    given, held = iter(inputs), {**program.constants, **program.state_dict}
    return [
        next(given) if spec.kind is InputKind.USER_INPUT else held[spec.target]
        for spec in program.graph_signature.input_specs
    ]


def sizes_beyond(program: ExportedProgram, inputs: Sequence[Tensor]) -> dict[str, list[int]]:
    """Return the sizes next to the ranges for which torch's guards hold, by the axis's symbol.

    Where forward() branches on a size, the program has the example's branch, and its
    ``range_constraints`` say for which sizes that is the right one.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found: dict[str, list[int]] = {}
    for name, tensor in zip(program.graph_signature.user_inputs, inputs, strict=True):
        for symbol, size in zip(tensor.axes, values[str(name)].shape, strict=True):
            if not isinstance(symbol, str) or not isinstance(size, torch.SymInt):
                continue
            known = program.range_constraints.get(size.node.expr)
            if known is not None and symbol not in found:
                ends = [known.lower - 1] if known.lower > _SMALLEST else []
                ends += [known.upper + 1] if known.upper < _LARGEST else []
                found[symbol] = [int(end) for end in ends]
    return found


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn off what torch decides by values, which a program cannot do.

    That is fused attention for the current processor, and whether a mask is the causal one: a hint,
    since the mask is applied in any case. Distributions check their parameters only to raise.
    """
    mha, transformer = torch.backends.mha, torch.nn.modules.transformer
    distribution = torch.distributions.Distribution
    before = mha.get_fastpath_enabled(), getattr(transformer, _DETECT)
    checking = distribution._validate_args  # noqa: SLF001
    mha.set_fastpath_enabled(False)
    distribution.set_default_validate_args(False)
    setattr(transformer, _DETECT, _as_said)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        mha.set_fastpath_enabled(before[0])
        distribution.set_default_validate_args(checking)
        setattr(transformer, _DETECT, before[1])


def _as_said(_mask: Any, is_causal: bool | None = None, _size: int | None = None) -> bool:
    return is_causal is True
