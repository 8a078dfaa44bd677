"""Standard streams that never fail: closed, full, or a pipe without a reader."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import IO, Any

__all__ = ["secure_standard_streams"]


def secure_standard_streams() -> None:
    """Make a process's exit code independent of the readers of its output.

    A closed standard descriptor is opened on the null device, so that no file gets its number and
    then the output. What cannot be written is dropped.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            _discard(descriptor)
        if descriptor == 0:
            sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
        else:
            setattr(sys, name, _reopened(descriptor, getattr(sys, name)))


class _LossyFile(io.FileIO):
    """An open descriptor; from the first failed write on, output is dropped."""

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written; wait where the descriptor does not block."""
        try:
            while (written := super().write(data)) is None:
                select.select((), (self,), ())
        except OSError:
            _discard(self.fileno())
            return len(data)
        return written


def _reopened(descriptor: int, stream: IO[str] | None) -> IO[str]:
    """Return a stream on a descriptor, with the encoding of the previous one."""
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


def _discard(descriptor: int) -> None:
    """Point a descriptor to the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
