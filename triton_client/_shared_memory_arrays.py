"""The arrays in one shared memory of either client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from triton_client._deadline import Deadline
from triton_client._origin import ProcessBound
from triton_client._shared_memory import ShmRegion, ShmRegistry
from triton_client.errors import TritonClientError

__all__ = ["RELEASE_SECONDS", "STILL_REGISTERED", "WAIT_SECONDS", "MemoryArrays", "is_held"]

Array = np.ndarray[Any, Any]

WAIT_SECONDS: Final = 0.002
# The server may have answered and not yet released the region.
RELEASE_SECONDS: Final = 10.0
STILL_REGISTERED: Final = "shared memory %s may stay registered with the server: %s"


def is_held(error: TritonClientError, limit: Deadline) -> bool:
    """Whether the server still uses a region and time is left to wait until it does not."""
    return "it is currently in use" in error.message and limit.remaining() != 0


class MemoryArrays(ProcessBound):
    """The arrays of one shared memory.

    Attributes:
        nbytes: The size in bytes.
    """

    __slots__ = ("_region", "_server", "_shm", "_timeout", "nbytes")

    def __init__(self, server: str, shm: ShmRegistry, nbytes: int, timeout: float | None) -> None:
        self.nbytes = nbytes
        self._server = server
        self._shm = shm
        self._timeout = timeout
        self._region: ShmRegion | None = None

    @property
    def name(self) -> str:
        """The name under which the server knows it; empty until it is entered."""
        return "" if self._region is None else self._region.name

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Return a new array in the shared memory, aligned to 64 bytes.

        Its room is free again when the shared memory is closed, not before.

        Args:
            shape: The array's shape.
            dtype: Any dtype of fixed size that Triton has; no strings.

        Raises:
            ValueError: There is not enough room left, or Triton has no such dtype.
            RuntimeError: The shared memory is not entered, closed, or a parent process's.
        """
        if self._region is None:
            raise RuntimeError("enter the shared memory first, in a with statement")
        return self._region.empty(shape, dtype)

    def copy(self, array: npt.ArrayLike) -> Array:
        """Return a copy of an array in the shared memory; raises what :meth:`empty` does."""
        source = np.asarray(array)
        copied = self.empty(source.shape, source.dtype)
        copied[...] = source
        return copied

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.nbytes} bytes>"

    def _open(self) -> ShmRegion:
        if self._region is not None:
            raise RuntimeError("shared memory is entered once; make another")
        self._region = ShmRegion(self.nbytes)
        return self._region

    def _leave(self) -> ShmRegion | None:
        """Return the region if this process has to close it."""
        region = self._region
        if region is None or not region.open:
            return None
        self._shm.remove(region)
        if region.owner == os.getpid():
            return region
        region.drop()
        return None
