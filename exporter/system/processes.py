"""The identity of a process, by which another one can tell that it has died."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

__all__ = ["ProcessId"]


@dataclass(frozen=True, slots=True)
class ProcessId:
    """The identity of a process.

    Attributes:
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
        return cls(pid, *_here(), _stat(pid)[1])

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
        here = _here()
        if not all(here) or (self.host, self.boot, self.namespace) != here or not self.pid:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        state, started = _stat(self.pid)
        return state in {"Z", "X"} or bool(started and self.started and started != self.started)


def _stat(pid: int) -> tuple[str, str]:
    """Return a process's state and when it started; empty where the kernel does not say."""
    with suppress(OSError):
        # The fields after the second one, a name in parentheses, which may hold spaces.
        later = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return later[0], later[19]
    return "", ""


def _here() -> tuple[str, str, str]:
    """Return this process's host, boot and namespace; empty where the kernel does not say."""
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname(), boot, namespace
