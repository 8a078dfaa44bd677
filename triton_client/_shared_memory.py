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
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from triton_client.errors import DeadlineExceeded, ServerError, TritonClientError, Unavailable
from triton_client.types import TensorSpec, wire_datatype

__all__ = ["Reference", "Shared", "ShmRegion", "ShmRegistry", "using"]

Array = np.ndarray[Any, Any]

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_ALIGNMENT: Final = 64


class Reference(NamedTuple):
    """Where a tensor is in shared memory.

    Attributes:
        region: The name under which the server knows the region.
        offset: Bytes from the region's start.
        nbytes: The size in bytes.
    """

    region: str
    offset: int
    nbytes: int


class ShmRegion:
    """Memory that other processes can map by its name.

    The memory stays mapped for as long as arrays refer to it. The name is removed at the latest
    when the object or the process that made it ends.

    Args:
        nbytes: The size in bytes.

    Raises:
        ValueError: The size is not positive.
        OSError: Not enough shared memory is free.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_lock",
        "_mapping",
        "_position",
        "_unlink",
        "_uses",
        "abandoned",
        "name",
        "nbytes",
        "open",
        "owner",
    )

    def __init__(self, nbytes: int) -> None:
        if nbytes < 1:
            raise ValueError(f"shared memory has at least one byte, not {nbytes}")
        self.owner = os.getpid()
        self.name = f"triton-client-{self.owner}-{secrets.token_hex(8)}"
        self.nbytes = nbytes
        self.open = True
        self.abandoned = False
        self._uses: set[tuple[int, object]] = set()
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
    def key(self) -> str:
        """The POSIX name."""
        return f"/{self.name}"

    @property
    def busy(self) -> bool:
        """Whether a call of this process uses it."""
        pid = os.getpid()
        return any(user == pid for user, _ in tuple(self._uses))

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

    def begin(self, use: tuple[int, object]) -> None:
        """Record a call that uses it.

        Raises:
            RuntimeError: It is closed.
        """
        # In this order, as `close` looks in the other one: either sees the other.
        self._uses.add(use)
        if not self.open:
            self._uses.discard(use)
            raise RuntimeError("the shared memory is closed")

    def end(self, use: tuple[int, object], *, answered: bool) -> None:
        """Record the end of a call, and whether the server is done with it."""
        if not answered:
            self.abandoned = True
        self._uses.discard(use)

    def drop(self) -> None:
        """Remove its name, where this process made it; the last array unmaps the memory."""
        self.open = False
        self._unlink()
        self._mapping = None


@dataclass(frozen=True, slots=True)
class Shared:
    """The tensors of one request that are in shared memory.

    Attributes:
        inputs: By name.
        outputs: By name.
        regions: All that are used.
    """

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

        Args:
            inputs: Every input with its array.
            buffers: The arrays that outputs are written to, by name.

        Raises:
            ValueError: The shared memory of such an array was closed.
        """
        regions: dict[str, ShmRegion] = {}
        sides: tuple[dict[str, Reference], dict[str, Reference]] = ({}, {})
        arrays = [
            (sides[0], spec.name, array) for spec, array in inputs if spec.datatype != "BYTES"
        ]
        arrays += [(sides[1], name, array) for name, array in buffers.items()]
        for side, name, array in arrays:
            found = self.find(array)
            if found is not None:
                region, side[name] = found
                regions[region.name] = region
        if len(sides[1]) < len(buffers):
            raise ValueError("the shared memory of an output's array was closed")
        return Shared(*sides, tuple(regions.values())) if regions else None


@contextmanager
def using(regions: Iterable[ShmRegion]) -> Iterator[None]:
    """Keep regions registered while a call uses them.

    Raises:
        RuntimeError: One is closed.
    """
    use = (os.getpid(), object())
    begun: list[ShmRegion] = []
    answered = True
    try:
        for region in regions:
            region.begin(use)
            begun.append(region)
        answered = False
        yield
        answered = True
    except BaseException as error:
        answered = answered or _is_answer(error)
        raise
    finally:
        for region in begun:
            region.end(use, answered=answered)


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
