"""What a node of a program is about."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["has_dtype"]


def has_dtype(node: Any, dtypes: frozenset[torch.dtype]) -> bool:
    """Whether a node takes or gives a tensor of one of some dtypes."""
    values = [node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]
    return any(isinstance(value, torch.Tensor) and value.dtype in dtypes for value in values)
