"""Shared memory of this machine: its segments, arrays in them, and the calls that use them.

A lock is never waited for in a child process, where a fork may have left it locked for ever.
"""

from __future__ import annotations

import mmap
import os
import secrets
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from triton_client.errors import DeadlineExceeded, ServerError, TritonClientError, Unavailable
from triton_client.types import wire_datatype

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from triton_client.types import TensorSpec

__all__ = ["Reference", "Regions", "Segment", "Shared", "using"]

Array = np.ndarray[Any, Any]

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_ALIGNMENT: Final = 64


class Reference(NamedTuple):
    """Where a tensor lies.

    Attributes:
        region: The name under which the server knows the region.
        offset: Bytes from the region's start.
        nbytes: The size in bytes.
    """

    region: str
    offset: int
    nbytes: int


class Segment:
    """A stretch of memory that other processes can map by its name.

    The memory stays mapped for as long as arrays refer to it. The name is removed at the latest
    when the object or the process that made it ends.

    Args:
        nbytes: The size in bytes.

    Raises:
        ValueError: The size is not positive.
        OSError: There is not so much shared memory, or none at all.
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
            raise ValueError("strings cannot lie in shared memory; pass them as they are")
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
        """Return where a contiguous array lies in it, ``None`` where it does not."""
        offset = int(array.__array_interface__["data"][0]) - self._address
        return offset if 0 <= offset <= self.nbytes - array.nbytes else None

    def begin(self, use: tuple[int, object]) -> None:
        """Take note of a call that uses it.

        Raises:
            RuntimeError: It is closed.
        """
        # In this order, as `close` looks in the other one: either sees the other.
        self._uses.add(use)
        if not self.open:
            self._uses.discard(use)
            raise RuntimeError("the shared memory is closed")

    def end(self, use: tuple[int, object], *, answered: bool) -> None:
        """Take note of the end of a call, and of whether the server is through with it."""
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
    """The tensors of one request that lie in shared memory.

    Attributes:
        inputs: By name.
        outputs: By name.
        segments: All that are used.
    """

    inputs: Mapping[str, Reference]
    outputs: Mapping[str, Reference]
    segments: tuple[Segment, ...]


class Regions:
    """The segments that one client has registered with its server."""

    __slots__ = ("_segments",)

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}

    def __bool__(self) -> bool:
        return bool(self._segments)

    def add(self, segment: Segment) -> None:
        """Refer to what lies in a segment from now on."""
        self._segments[segment.name] = segment

    def remove(self, segment: Segment) -> None:
        """Refer to a segment no more."""
        segment.open = False
        self._segments.pop(segment.name, None)

    def find(self, array: Array) -> tuple[Segment, Reference] | None:
        """Return where an array lies; ``None`` for one that cannot be referred to."""
        if not array.nbytes or not array.flags.c_contiguous or not array.dtype.isnative:
            return None
        for segment in tuple(self._segments.values()):
            offset = segment.offset(array)
            if offset is not None:
                return segment, Reference(segment.name, offset, array.nbytes)
        return None

    def share(
        self, inputs: Iterable[tuple[TensorSpec, Array]], placed: Mapping[str, Array]
    ) -> Shared | None:
        """Return what of a request lies in shared memory; ``None`` for nothing.

        Args:
            inputs: Every input with its array.
            placed: The arrays that outputs are written to, by name.

        Raises:
            ValueError: Such an array does not lie in shared memory any more.
        """
        segments: dict[str, Segment] = {}
        sides: tuple[dict[str, Reference], dict[str, Reference]] = ({}, {})
        arrays = [
            (sides[0], spec.name, array) for spec, array in inputs if spec.datatype != "BYTES"
        ]
        arrays += [(sides[1], name, array) for name, array in placed.items()]
        for side, name, array in arrays:
            found = self.find(array)
            if found is not None:
                segment, side[name] = found
                segments[segment.name] = segment
        if len(sides[1]) < len(placed):
            raise ValueError("the shared memory of an output's array was closed")
        return Shared(*sides, tuple(segments.values())) if segments else None


@contextmanager
def using(segments: Iterable[Segment]) -> Iterator[None]:
    """Keep segments registered while a call uses them.

    Raises:
        RuntimeError: One is closed.
    """
    use = (os.getpid(), object())
    begun: list[Segment] = []
    answered = True
    try:
        for segment in segments:
            segment.begin(use)
            begun.append(segment)
        answered = False
        yield
        answered = True
    except BaseException as error:
        answered = answered or _is_answer(error)
        raise
    finally:
        for segment in begun:
            segment.end(use, answered=answered)


def _is_answer(error: BaseException) -> bool:
    """Tell whether the server has surely ended a call that failed."""
    if isinstance(error, ServerError):
        return "RST_STREAM" not in error.message
    unanswered = isinstance(error, DeadlineExceeded | Unavailable)
    return isinstance(error, TritonClientError) and not unanswered


def _unlink(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(FileNotFoundError):
            path.unlink()
