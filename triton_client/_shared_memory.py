"""Shared memory of this machine: its regions, arrays in them, and the calls that use them.

A lock is never waited for in a child process, where a fork may have left it locked for ever.
"""

from __future__ import annotations

import mmap
import os
import secrets
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from triton_client._origin import ProcessBound
from triton_client.errors import DeadlineExceeded, ServerError, TritonClientError, Unavailable
from triton_client.types import TensorSpec, wire_datatype

__all__ = [
    "RELEASE_SECONDS", "STILL_USED", "WAIT_SECONDS", "MemoryArrays", "Reference", "Shared",
    "ShmRegion", "ShmRegistry", "using",
]  # fmt: skip

Array = np.ndarray[Any, Any]

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_ALIGNMENT: Final = 64
WAIT_SECONDS: Final = 0.002
# The server may have answered and not yet released the region.
RELEASE_SECONDS: Final = 10.0
STILL_USED: Final = "it is currently in use"


class Reference(NamedTuple):
    """Where a tensor is in shared memory: the region's name, an offset and a size in bytes."""

    region: str
    offset: int
    nbytes: int


class ShmRegion:
    """Memory that other processes can map by its name.

    The memory stays mapped for as long as arrays refer to it. The name is removed at the latest
    when the object or the process that made it ends.

    Raises:
        ValueError: The size is not positive.
        OSError: Not enough shared memory is free.
    """

    __slots__ = (
        "__weakref__", "_address", "_lock", "_mapping", "_position", "_unlink", "abandoned", "name",
        "nbytes", "open", "owner", "uses",
    )  # fmt: skip

    def __init__(self, nbytes: int) -> None:
        if nbytes < 1:
            raise ValueError(f"shared memory has at least one byte, not {nbytes}")
        self.owner = os.getpid()
        self.name = f"triton-client-{self.owner}-{secrets.token_hex(8)}"
        self.nbytes = nbytes
        self.open = True
        self.abandoned = False
        self.uses: set[tuple[int, object]] = set()
        self._position = 0
        self._lock = Lock()
        path = _FOLDER / self.name
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        self._unlink = weakref.finalize(self, _unlink, path, self.owner)
        try:
            # A file that is only made longer would end the process where memory runs out.
            os.posix_fallocate(descriptor, 0, nbytes)
            self._mapping: mmap.mmap | None = mmap.mmap(descriptor, nbytes)
        except OSError as error:
            self._unlink()
            raise OSError(
                error.errno, f"no {nbytes} bytes of shared memory; a container may need --shm-size"
            ) from error
        finally:
            os.close(descriptor)
        whole = np.frombuffer(self._mapping, np.uint8)
        self._address = int(whole.__array_interface__["data"][0])

    @property
    def busy(self) -> bool:
        """Whether a call of this process uses it."""
        pid = os.getpid()
        return any(user == pid for user, _ in tuple(self.uses))

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Return a new array in it, aligned to 64 bytes.

        Raises:
            ValueError: There is no room, or the dtype has no fixed size on the wire.
            RuntimeError: It is closed, or belongs to a parent process.
        """
        if not self.open or self._mapping is None:
            raise RuntimeError("the shared memory is closed")
        if os.getpid() != self.owner:
            raise RuntimeError("make the arrays before the fork: both processes share the memory")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype).newbyteorder("=")
        if wire_datatype(dtype) == "BYTES":
            raise ValueError("strings cannot be in shared memory; pass them as they are")
        nbytes = prod(shape) * dtype.itemsize
        with self._lock:
            start = -(-self._position // _ALIGNMENT) * _ALIGNMENT
            free = max(0, self.nbytes - start)
            if nbytes > free:
                raise ValueError(
                    f"{nbytes} bytes do not fit: {free} of the {self.nbytes} bytes of shared "
                    "memory are free"
                )
            self._position = start + nbytes
        return np.ndarray(shape, dtype, self._mapping, start)

    def offset(self, array: Array) -> int | None:
        """Return the offset of a contiguous array in it; ``None`` for an array elsewhere."""
        offset = int(array.__array_interface__["data"][0]) - self._address
        return offset if 0 <= offset <= self.nbytes - array.nbytes else None

    def drop(self) -> None:
        """Remove its name, where this process made it; the last array unmaps the memory."""
        self.open = False
        self._unlink()
        self._mapping = None


class Shared(NamedTuple):
    """The inputs and the outputs of one request that are in shared memory, and all its regions."""

    inputs: Mapping[str, Reference]
    outputs: Mapping[str, Reference]
    regions: tuple[ShmRegion, ...]


class ShmRegistry:
    """The regions that one client has registered with its server."""

    __slots__ = ("_regions",)

    def __init__(self) -> None:
        self._regions: dict[str, ShmRegion] = {}

    def __bool__(self) -> bool:
        return bool(self._regions)

    def add(self, region: ShmRegion) -> None:
        """Refer to arrays in a region from now on."""
        self._regions[region.name] = region

    def remove(self, region: ShmRegion) -> None:
        """Stop referring to a region."""
        region.open = False
        self._regions.pop(region.name, None)

    def find(self, array: Array) -> tuple[ShmRegion, Reference] | None:
        """Return the region and place of an array; ``None`` for one that cannot be referred to."""
        if not array.nbytes or not array.flags.c_contiguous or not array.dtype.isnative:
            return None
        for region in tuple(self._regions.values()):
            offset = region.offset(array)
            if offset is not None:
                return region, Reference(region.name, offset, array.nbytes)
        return None

    def share(
        self, inputs: Iterable[tuple[TensorSpec, Array]], buffers: Mapping[str, Array]
    ) -> Shared | None:
        """Return which tensors of a request are in shared memory; ``None`` for none.

        Raises:
            ValueError: The shared memory of an array that an output is written to was closed.
        """
        regions: dict[str, ShmRegion] = {}

        def references(arrays: Iterable[tuple[str, Array]]) -> dict[str, Reference]:
            places = {}
            for name, array in arrays:
                found = self.find(array)
                if found is not None:
                    region, places[name] = found
                    regions[region.name] = region
            return places

        given = references((spec.name, array) for spec, array in inputs if spec.datatype != "BYTES")
        written = references(buffers.items())
        if len(written) < len(buffers):
            raise ValueError("the shared memory of an output's array was closed")
        return Shared(given, written, tuple(regions.values())) if regions else None


@contextmanager
def using(regions: Sequence[ShmRegion]) -> Iterator[None]:
    """Keep regions registered while a call uses them.

    Raises:
        RuntimeError: One is closed.
    """
    use = (os.getpid(), object())
    answered = True
    try:
        # In this order, as `close` looks in the other one: either sees the other.
        for region in regions:
            region.uses.add(use)
        if not all(region.open for region in regions):
            raise RuntimeError("the shared memory is closed")  # noqa: TRY301
        answered = False
        yield
        answered = True
    except BaseException as error:
        answered = answered or _is_answer(error)
        raise
    finally:
        for region in regions:
            # Whether the server is done with it comes before that the call is.
            if not answered:
                region.abandoned = True
            region.uses.discard(use)


class MemoryArrays(ProcessBound):
    """The arrays of one shared memory.

    Attributes:
        nbytes: The size in bytes.
    """

    __slots__ = ("_region", "_server", "_shm", "_timeout", "_transport", "nbytes")

    def __init__(
        self, transport: Any, server: str, shm: ShmRegistry, nbytes: int, timeout: float | None
    ) -> None:
        self.nbytes = nbytes
        self._transport = transport
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


def _is_answer(error: BaseException) -> bool:
    """Check whether the server has certainly ended a call that failed."""
    if isinstance(error, ServerError):
        return "RST_STREAM" not in error.message
    unanswered = isinstance(error, DeadlineExceeded | Unavailable)
    return isinstance(error, TritonClientError) and not unanswered


def _unlink(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(FileNotFoundError):
            path.unlink()
