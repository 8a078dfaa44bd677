"""Data types by their names: in a model configuration and in torch."""

from __future__ import annotations

from typing import Any

__all__ = ["config_datatype", "is_supported"]

# torch's name, the configuration's. Unsigned ones of more than one byte, and bfloat16, have none.
_TYPES: dict[str, str] = {
    "torch.bool": "TYPE_BOOL",
    "torch.uint8": "TYPE_UINT8",
    "torch.int8": "TYPE_INT8",
    "torch.int16": "TYPE_INT16",
    "torch.int32": "TYPE_INT32",
    "torch.int64": "TYPE_INT64",
    "torch.float16": "TYPE_FP16",
    "torch.float32": "TYPE_FP32",
    "torch.float64": "TYPE_FP64",
}


def config_datatype(dtype: Any) -> str:
    """Return the configuration's name of a ``torch.dtype``."""
    return _TYPES.get(str(dtype), "TYPE_<invalid>")


def is_supported(datatype: str) -> bool:
    """Whether tensors of a data type are served, by the configuration's name."""
    return datatype in _TYPES.values()
