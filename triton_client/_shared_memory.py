"""System shared memory with a server on the same machine, for threads."""

from __future__ import annotations

import logging
import os
from time import sleep
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from triton_client._deadline import Deadline
from triton_client._origin import ProcessBound
from triton_client._regions import Segment
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy.typing as npt

    from triton_client._calls import Calls
    from triton_client._regions import Regions
    from triton_client._transport import Transport

__all__ = [
    "RELEASE_SECONDS",
    "STILL_REGISTERED",
    "WAIT_SECONDS",
    "MemoryArrays",
    "SharedMemory",
    "is_held",
]

Array = np.ndarray[Any, Any]

WAIT_SECONDS: Final = 0.002
# The server may have answered, and not yet have let go of what it answered from.
RELEASE_SECONDS: Final = 10.0
STILL_REGISTERED: Final = "shared memory %s may stay registered with the server: %s"
_log = logging.getLogger(__name__)


def is_held(error: TritonClientError, limit: Deadline) -> bool:
    """Whether the server may let go of a region that it still uses, before it is too late."""
    return "it is currently in use" in error.message and limit.remaining() != 0


class MemoryArrays(ProcessBound):
    """The arrays of one shared memory of either client.

    Attributes:
        nbytes: The size in bytes.
    """

    __slots__ = ("_calls", "_regions", "_segment", "_timeout", "nbytes")

    def __init__(self, calls: Calls, regions: Regions, nbytes: int, timeout: float | None) -> None:
        self.nbytes = nbytes
        self._calls = calls
        self._regions = regions
        self._timeout = timeout
        self._segment: Segment | None = None

    @property
    def name(self) -> str:
        """The name under which the server knows it; empty until it is entered."""
        return "" if self._segment is None else self._segment.name

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Return a new array that lies here, aligned to 64 bytes.

        Its room is free again when the shared memory is closed, not before.

        Args:
            shape: The array's shape.
            dtype: Any dtype of fixed size that Triton has; no strings.

        Raises:
            ValueError: There is not enough room left, or Triton has no such dtype.
            RuntimeError: The shared memory is not entered, closed, or a parent process's.
        """
        if self._segment is None:
            raise RuntimeError("enter the shared memory first, in a with statement")
        return self._segment.empty(shape, dtype)

    def copy(self, array: npt.ArrayLike) -> Array:
        """Return a copy of an array that lies here; as :meth:`empty` otherwise."""
        source = np.asarray(array)
        copied = self.empty(source.shape, source.dtype)
        copied[...] = source
        return copied

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.nbytes} bytes>"

    def _open(self) -> Segment:
        if self._segment is not None:
            raise RuntimeError("shared memory is entered once; make another")
        self._segment = Segment(self.nbytes)
        return self._segment

    def _leave(self) -> Segment | None:
        """Return the segment where it is this process's to close."""
        segment = self._segment
        if segment is None or not segment.open:
            return None
        self._regions.remove(segment)
        if segment.owner == os.getpid():
            return segment
        segment.drop()
        return None


class SharedMemory(MemoryArrays):
    """Memory that a server on this machine reads and writes; from ``TritonClient.shared_memory``.

        with client.shared_memory(1 << 20) as memory:
            x = memory.copy(history)
            y = memory.empty((8, 10), np.float32)
            model.infer({"history": x}, outputs={"forecast": y})

    Contiguous inputs of :meth:`Model.infer` that lie here are sent by reference. Such a call is
    never sent twice, for the server might still be at the first one when the second has ended.

    Leaving waits for the calls of this process that use it; then it is unregistered and its name
    removed. A call that ended without an answer (a deadline, a broken connection) may still be
    under way in the server, under which the memory must not go: then the name is removed, but the
    region stays registered, so that the server holds the memory until it ends.
    Arrays stay usable for as long as they live, and are sent by value from then on. A child process
    shares the memory and may refer to it; leaving it there neither unregisters nor removes it.
    """

    __slots__ = ("_transport",)

    def __init__(
        self,
        transport: Transport,
        calls: Calls,
        regions: Regions,
        nbytes: int,
        timeout: float | None,
    ) -> None:
        super().__init__(calls, regions, nbytes, timeout)
        self._transport = transport

    def __enter__(self) -> Self:
        segment = self._open()
        call = self._calls.register(segment.name, segment.key, segment.nbytes)
        try:
            self._transport.run(call, Deadline(self._timeout))
        except BaseException:
            segment.drop()
            raise
        self._regions.add(segment)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the calls that use it, and give it up; another close is fine."""
        segment = self._leave()
        if segment is None:
            return
        try:
            while segment.busy:
                sleep(WAIT_SECONDS)
            limit = Deadline(RELEASE_SECONDS)
            while not segment.abandoned:
                try:
                    call = self._calls.unregister(segment.name)
                    self._transport.run(call, Deadline(self._timeout))
                    break
                except TritonClientError as error:
                    if not is_held(error, limit):
                        raise
                    sleep(WAIT_SECONDS)
        except (TritonClientError, RuntimeError) as error:
            _log.warning(STILL_REGISTERED, segment.name, error)
        finally:
            segment.drop()
