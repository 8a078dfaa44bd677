"""Recurrent layers over packed sequences of which only the last state is used.

torch's older exporter reads packed sequences and looks for the users of their outputs; without any,
it fails.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from exporter.sources.pytorch.call_convention import PositionalModule

__all__ = ["WithPackedOutputs", "is_recurrent"]


def is_recurrent(module: torch.nn.Module) -> bool:
    """Whether a module has recurrent layers, which may be given packed sequences."""
    return any(isinstance(part, torch.nn.RNNBase) for part in module.modules())


class WithPackedOutputs(torch.nn.Module):  # type: ignore[misc]
    """A module that returns, after its own result, the outputs of its packed layers."""

    def __init__(self, module: PositionalModule) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the module's tensors, and the outputs of its packed layers for every step."""
        outputs: list[torch.Tensor] = []

        def keep(layer: Any, _given: Any, answer: Any) -> None:
            if isinstance(answer[0], PackedSequence):
                outputs.append(pad_packed_sequence(answer[0], layer.batch_first)[0])

        layers = [part for part in self.modules() if isinstance(part, torch.nn.RNNBase)]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        try:
            return (*self.module(*tensors), *outputs)
        finally:
            for hook in hooks:
                hook.remove()
