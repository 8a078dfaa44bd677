"""Ends every process that a benchmark started, however the benchmark itself ends.

Servers start workers of their own, some in sessions of their own. All of them inherit a mark in the
environment, and a guardian waits on a pipe whose other end only the benchmark holds: when that
closes, ``kill -9`` included, it kills what carries the mark, and whatever runs in a session with
it.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType
    from typing import NoReturn

__all__ = ["guarded", "marked"]

# Not one of the settings (STLAB_*, MLFLOW_*), which benchmarks leave out of environments.
_MARK = "BENCHMARK_GUARD"
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_KILL_SECONDS = 10.0


@contextmanager
def guarded() -> Iterator[None]:
    """End what the block has started when the block ends, or this process.

    SIGTERM and SIGHUP end the block as an interrupt does, so that it tidies up.
    """
    mark = secrets.token_hex(16)
    guardian = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark, str(os.getsid(0))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    previous = {number: signal.signal(number, _exit) for number in _SIGNALS}
    os.environ[_MARK] = mark
    try:
        yield
    finally:
        del os.environ[_MARK]
        guardian.communicate()
        for number, handler in previous.items():
            signal.signal(number, handler)


def marked(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that must not outlive the benchmark."""
    mark = os.environ.get(_MARK)
    return {**environment, **({_MARK: mark} if mark else {})}


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _end_all(mark: str, sessions: set[int]) -> None:
    """Kill until nothing is found any more: what is just being started is found the next time.

    Args:
        mark: The mark.
        sessions: Those in which a process without the mark stays: the benchmark's and our own.
    """
    end = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < end:
        found = _carriers(mark, sessions)
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.02)


def _carriers(mark: str, spared: set[int]) -> set[int]:
    """Return the living processes with a mark, and those that run in a session with one."""
    sessions: dict[int, int] = {}
    carriers: set[int] = set()
    entry = f"{_MARK}={mark}".encode()
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                state, _, _, session = (path / "stat").read_bytes().rpartition(b")")[2].split()[:4]
                if state not in {b"Z", b"X"}:
                    sessions[int(path.name)] = int(session)
                    if entry in (path / "environ").read_bytes().split(b"\0"):
                        carriers.add(int(path.name))
    marked_sessions = {sessions[pid] for pid in carriers} - spared
    return carriers | {pid for pid, session in sessions.items() if session in marked_sessions}


if __name__ == "__main__":
    for each in (signal.SIGINT, *_SIGNALS):
        signal.signal(each, signal.SIG_IGN)
    sys.stdin.buffer.read()
    _end_all(sys.argv[1], {int(sys.argv[2]), os.getsid(0)})
