"""Read the output of a process that may write anything, or nothing, without end."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["LONGEST_LINE", "LineTooLongError", "Listened"]

LONGEST_LINE = 1 << 16
_TAIL, _READ = 1 << 14, 1 << 16
# How often a silent process is checked for its end.
_POLL_SECONDS = 0.2


class LineTooLongError(ValueError):
    """A line exceeds `LONGEST_LINE`."""


class Listened:
    """A process whose output is read, in bounded memory, until a deadline."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, seconds: float
    ) -> None:
        self._deadline = time.monotonic() + seconds
        self._errors = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        self._pipes = [pipe for pipe in (self._process.stdout, self._process.stderr) if pipe]

    @property
    def returncode(self) -> int | None:
        """The exit code as `subprocess.Popen` has it; None while the process runs."""
        return self._process.returncode

    @property
    def errors(self) -> str:
        """The end of its stderr."""
        return self._errors.decode(errors="replace")

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that it writes to stdout, until it has ended.

        Raises:
            TimeoutError: The deadline has passed.
            LineTooLongError: A line is longer than `LONGEST_LINE`.
        """
        pending = b""
        for data in self._read():
            *whole, pending = (pending + data).split(b"\n")
            if any(len(line) > LONGEST_LINE for line in (*whole, pending)):
                raise LineTooLongError
            yield from whole
        try:
            self._process.wait(max(self._deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def end(self) -> None:
        """Kill it and what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _read(self) -> Iterator[bytes]:
        with selectors.DefaultSelector() as selector:
            for pipe in self._pipes:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                ended = self._process.poll() is not None
                ready = selector.select(min(left, _POLL_SECONDS))
                if ended and not ready:
                    return  # a child of it holds the pipes
                for key, _ in ready:
                    data = os.read(key.fd, _READ)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self._process.stderr:
                        self._errors = (self._errors + data)[-_TAIL:]
                    else:
                        yield data
