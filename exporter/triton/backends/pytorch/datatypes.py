"""Data types by their names in torch and in a model configuration."""

from __future__ import annotations

from typing import Any

from ..shared.datatypes import DATATYPES

__all__ = ["config_datatype", "is_supported"]

_UNSUPPORTED = {"TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_STRING", "TYPE_BF16"}
_SUPPORTED = frozenset(DATATYPES.values()) - _UNSUPPORTED


def config_datatype(dtype: Any) -> str:
    """Return the configuration's name of a ``torch.dtype``."""
    datatype = DATATYPES.get(str(dtype).removeprefix("torch."), "")
    return datatype if datatype in _SUPPORTED else "TYPE_<invalid>"


def is_supported(datatype: str) -> bool:
    """Whether the backend serves tensors of a data type, by the configuration's name."""
    return datatype in _SUPPORTED
