"""A transformers model that takes tensors by position and returns only tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["Tensors"]


class Tensors(torch.nn.Module):  # type: ignore[misc]
    """A model with tensors as its only inputs and outputs."""

    def __init__(self, network: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.training = network.training

    def forward(self, *tensors: torch.Tensor) -> dict[str, Any]:
        """Return every output by the name that the model gives it."""
        named = dict(zip(self.names, tensors, strict=True))
        answer = self.network(**named, return_dict=True)
        return {name: value for name, value in answer.items() if _is_tensor(value)}


def _is_tensor(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_tensor, value))
    return isinstance(value, torch.Tensor)
