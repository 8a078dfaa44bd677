"""Data types by their names: in a model configuration, in ONNX Runtime, in numpy."""

from __future__ import annotations

import os

import numpy as np

__all__ = ["INVALID", "NUMPY_TYPES", "config_datatype", "is_supported"]

INVALID = "TYPE_INVALID"

# ONNX Runtime's name, the configuration's; numpy has no bfloat16 and gets its bits.
_TYPES: dict[str, str] = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float": "TYPE_FP32",
    "double": "TYPE_FP64",
    "string": "TYPE_STRING",
    "bfloat16": "TYPE_BF16",
}

# In the order of the server's own enumeration, which starts at 1.
NUMPY_TYPES: tuple[np.dtype, ...] = tuple(
    np.dtype(name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "object"),
    )
)

_FIRST_RELEASE_WITH_BFLOAT16 = "26.03"


def config_datatype(onnxruntime_type: str) -> str:
    """Return the configuration's name of an element type of ONNX Runtime, such as ``float``."""
    datatype = _TYPES.get(onnxruntime_type, INVALID)
    return datatype if is_supported(datatype) else INVALID


def is_supported(datatype: str) -> bool:
    """Whether the backend of the target release has a data type, by the configuration's name."""
    if datatype == "TYPE_BF16":
        release = os.environ.get("STLAB_TRITON_RELEASE", "")
        return not release or release >= _FIRST_RELEASE_WITH_BFLOAT16
    return datatype in _TYPES.values()
