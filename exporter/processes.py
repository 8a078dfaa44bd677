"""Tells whether a process that left its mark somewhere is still there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["is_gone", "process_mark"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_mark(pid: int | None = None) -> str:
    """Return what no other process is called: this machine's boot, its namespace, pid and start.

    Args:
        pid: The process; this one by default.

    Returns:
        Empty where there is no such process, or the system does not say.
    """
    pid = pid or os.getpid()
    try:
        # The name of the program, in brackets, may hold anything; the start is the 20th after it.
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{_machine()}/{pid}/{start}"
    except (OSError, IndexError):
        return ""


def is_gone(mark: str) -> bool:
    """Whether a process has surely ended: it ran on this machine, and runs there no more."""
    machine, _, rest = mark.partition("/")
    with suppress(OSError, ValueError):
        return machine == _machine() and process_mark(int(rest.partition("/")[0])) != mark
    return False


def _machine() -> str:
    return f"{_BOOT.read_text().strip()}-{Path('/proc/self/ns/pid').stat().st_ino}"
