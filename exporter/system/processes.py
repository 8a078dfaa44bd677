"""The identity of a process, by which another one can tell that it has died."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

__all__ = ["ProcessId"]

# The 22nd field of /proc/PID/stat; the second one, a name in parentheses, may hold spaces.
_STATE, _STARTED = 0, 19
_DEAD = frozenset({"Z", "X"})


@dataclass(frozen=True, slots=True)
class ProcessId:
    """The identity of a process.

    Attributes:
        pid: Its number.
        host: The machine's name.
        boot: The kernel's id of the machine's current boot.
        namespace: The process namespace that the number belongs to.
        started: When it started, in the kernel's ticks, since numbers are reused.
    """

    pid: int
    host: str
    boot: str
    namespace: str
    started: str

    @classmethod
    def this_process(cls) -> Self:
        """Return the calling process."""
        pid = os.getpid()
        return cls(pid, socket.gethostname(), _boot(), _namespace(), _stat(pid)[1])

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Return the process of a record; a field that it lacks is empty."""
        texts = {field.name: str(content.get(field.name, "")) for field in fields(cls)}
        pid = texts.pop("pid")
        return cls(int(pid) if pid.isdecimal() and len(pid) < 20 else 0, **texts)

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'} on {self.host or 'an unknown machine'}"

    def as_dict(self) -> dict[str, Any]:
        """Return what `read` reads."""
        return asdict(self)

    def has_died(self) -> bool:
        """Whether it certainly ended: it ran on this machine and no longer does."""
        here = (socket.gethostname(), _boot(), _namespace())
        if not all(here) or (self.host, self.boot, self.namespace) != here or not self.pid:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        state, started = _stat(self.pid)
        return state in _DEAD or bool(started and self.started and started != self.started)


def _stat(pid: int) -> tuple[str, str]:
    """Return a process's state and when it started; empty where the kernel does not say."""
    try:
        fields_after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields_after_name[_STATE], fields_after_name[_STARTED]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
