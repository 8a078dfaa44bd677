"""Data types by their names in numpy and in a model configuration."""

from __future__ import annotations

import numpy as np

__all__ = ["DATATYPES", "Array"]

Array = np.ndarray

DATATYPES = {
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
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "object": "TYPE_STRING",
    "bfloat16": "TYPE_BF16",  # numpy has no such type
}
"""The configuration's name by numpy's, in the order of the server's enumeration from 1."""
