"""What the python backend's stub does for every tensor in Python, done faster.

The stub calls ``triton_python_backend_utils`` for the data type of every tensor, a chain of a dozen
comparisons each way, and for the wire format of strings, element by element. It looks the functions
up at every call, so replacing them is enough.
"""

from __future__ import annotations

import asyncio
import types
from typing import Any

import numpy as np
import triton_python_backend_utils as backend_utils

from ..shared.datatypes import DATATYPES
from .strings import deserialize, serialize

__all__ = ["accelerate"]


def accelerate() -> None:
    """Replace the slow functions; safe to call again."""
    names = [name for name in DATATYPES if name != "bfloat16"]
    by_number: dict[int, Any] = {n: np.dtype(name) for n, name in enumerate(names, start=1)}
    backend_utils.triton_to_numpy_type = by_number.get
    backend_utils.numpy_to_triton_type = {
        numpy_type: number for number, numpy_type in by_number.items()
    }.__getitem__
    backend_utils.deserialize_bytes_tensor = deserialize
    backend_utils.serialize_byte_tensor = serialize
    # Called for every batch with the list of responses.
    asyncio.iscoroutine = types.CoroutineType.__instancecheck__  # type: ignore[assignment]
