"""Standard streams that no command fails of: closed, full, or a pipe that is no longer read."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import IO, Any

__all__ = ["secure_standard_streams"]

_NAMES = ("stdin", "stdout", "stderr")


def secure_standard_streams() -> None:
    """Keep a process's exit code from hanging on who reads its output.

    A standard descriptor that is closed is opened on the null device, so that no file takes its
    number and then gets what is printed. What cannot be written is dropped.
    """
    for descriptor, name in enumerate(_NAMES):
        if not _is_open(descriptor):
            _discard(descriptor)
        if descriptor == 0:
            sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
        else:
            setattr(sys, name, _reopened(descriptor, getattr(sys, name)))


class _LossyFile(io.FileIO):
    """An open descriptor; what it does not take is dropped, and so is what follows."""

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written; waits where the descriptor does not block."""
        try:
            while (written := super().write(data)) is None:
                select.select((), (self,), ())
        except OSError:
            _discard(self.fileno())
            return len(data)
        return written


def _reopened(descriptor: int, stream: IO[str] | None) -> IO[str]:
    """Return a stream on a descriptor that writes as one did, if it was there."""
    if stream is not None:
        try:
            stream.flush()
        except OSError:
            _discard(descriptor)
    raw = _LossyFile(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _discard(descriptor: int) -> None:
    """Let a descriptor be the null device's."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
