"""Data types by their names in ONNX Runtime and in a model configuration."""

from __future__ import annotations

import os

from ..shared.datatypes import DATATYPES

__all__ = ["INVALID", "config_datatype", "is_supported"]

INVALID = "TYPE_INVALID"

# ONNX Runtime's names where they differ from numpy's.
_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object"}

_FIRST_RELEASE_WITH_BFLOAT16 = "26.03"


def config_datatype(onnxruntime_type: str) -> str:
    """Return the configuration's name of an element type of ONNX Runtime, such as ``float``."""
    datatype = DATATYPES.get(_NUMPY_NAMES.get(onnxruntime_type, onnxruntime_type), INVALID)
    return datatype if is_supported(datatype) else INVALID


def is_supported(datatype: str) -> bool:
    """Whether the backend of the target release has a data type, by the configuration's name."""
    if datatype == "TYPE_BF16":
        release = os.environ.get("STLAB_TRITON_RELEASE", "")
        return not release or release >= _FIRST_RELEASE_WITH_BFLOAT16
    return datatype in DATATYPES.values()
