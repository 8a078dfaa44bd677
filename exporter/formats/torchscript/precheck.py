"""Runs a TorchScript archive here, before a server does, to choose between exporters."""

from __future__ import annotations

from pathlib import Path

import torch

from exporter.arrays import Array, Arrays
from exporter.errors import first_line
from exporter.interface import Interface
from exporter.parity.reference_set import ReferenceSet, first_mismatch

__all__ = ["precheck"]


def precheck(path: Path, interface: Interface, references: ReferenceSet) -> str:
    """Return how an archive differs from the reference; empty where it does not."""

    def run(inputs: Arrays) -> dict[str, Array]:
        given = [torch.tensor(inputs[tensor.name]) for tensor in interface.inputs]
        with torch.inference_mode():
            found = script(*(tensor if tensor.dim() else tensor[None] for tensor in given))
        leaves = (found,) if isinstance(found, torch.Tensor) else found
        return {
            tensor.name: (leaf if tensor.axes else leaf[0]).contiguous().numpy()
            for tensor, leaf in zip(interface.outputs, leaves, strict=True)
        }

    try:
        script = torch.jit.load(str(path), map_location="cpu")
        return first_mismatch(run, references, interface.outputs)
    except Exception as error:  # noqa: BLE001 - whatever an operator raises
        return first_line(error)
