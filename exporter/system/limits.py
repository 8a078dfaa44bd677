"""How much of the machine a process may take."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "memory_of_machine"]

OPEN_FILES = 4096
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may take; 0 for no limit.

    Attributes:
        address_space: Bytes that it may map, files and reserved space included.
        data: Bytes of memory of its own.
        file_size: Bytes of one file that it writes.
        threads: Threads of its user in its namespace; the kernel does not bound root's.
        open_files: Descriptors.
    """

    address_space: int = 0
    data: int = 0
    file_size: int = 0
    threads: int = 0
    open_files: int = OPEN_FILES

    def apply(self) -> None:
        """Bound this process and those that it starts, for good."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for limit, most in (
            (resource.RLIMIT_AS, self.address_space),
            (resource.RLIMIT_DATA, self.data),
            (resource.RLIMIT_FSIZE, self.file_size),
            (resource.RLIMIT_NPROC, self.threads),
            (resource.RLIMIT_NOFILE, self.open_files),
        ):
            hard = resource.getrlimit(limit)[1]
            if most and (hard == resource.RLIM_INFINITY or most < hard):
                resource.setrlimit(limit, (most, most))


def memory_of_machine() -> int:
    """Return the bytes of memory that there are: the machine's, or the container's."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUPS:
        with suppress(OSError, ValueError):  # it says "max" where there is no limit
            most = min(most, int(Path(path).read_text()))
    return most
