"""Runs an archive here, before a server does, to choose between ways to write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporter.errors import first_line
from exporter.parity.compare import compare_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.arrays import Array, Arrays
    from exporter.interface import Interface
    from exporter.parity.reference_set import ReferenceSet

__all__ = ["precheck"]


def precheck(path: Path, interface: Interface, references: ReferenceSet) -> str:
    """Return how an archive answers otherwise than the reference; empty where it does not.

    Args:
        path: The archive.
        interface: The reference's.
        references: What it must answer.
    """
    answers = [*references.cases, *([references.batch] if references.batch else [])]
    try:
        script = torch.jit.load(str(path), map_location="cpu")
        for answer in answers:
            found = _ask(script, answer.case.inputs, interface)
            for difference in compare_outputs(
                interface.outputs, answer.outputs, found, references.tolerances, answer.float64
            ):
                if difference.problem:
                    return f"{answer.case.name}: {difference.output} has {difference.problem}"
    except Exception as error:  # noqa: BLE001 - whatever an operator raises
        return first_line(error)
    return ""


def _ask(script: Any, inputs: Arrays, interface: Interface) -> dict[str, Array]:
    given = [torch.tensor(inputs[tensor.name]) for tensor in interface.inputs]
    with torch.inference_mode():
        answer = script(*(tensor if tensor.dim() else tensor[None] for tensor in given))
    leaves = (answer,) if isinstance(answer, torch.Tensor) else answer
    return {
        tensor.name: (leaf if tensor.axes else leaf[0]).contiguous().numpy()
        for tensor, leaf in zip(interface.outputs, leaves, strict=True)
    }
