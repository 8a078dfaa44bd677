"""Resource limits of a process, and signs that the machine has run out of something."""

from __future__ import annotations

import errno
import os
import re
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import causes

__all__ = [
    "Limits",
    "exhausted",
    "memory_of_machine",
    "oom_kills",
    "room_of_machine",
    "shortage",
    "threads_within",
]

# Libraries reserve memory for every core, and use little of it.
_ROOM_PER_CORE = 256 << 20
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# What the C library, C++ and Python say when the system refuses a resource. ONNX Runtime's own
# words for an allocation are left out: a model may ask for more than any machine has.
_EXHAUSTED = re.compile(
    r"Cannot allocate memory|std::bad_alloc|bad allocation|MemoryError|Too many open files|"
    r"No space left on device|Resource temporarily unavailable"
)
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a process; 0 for none.

    Attributes:
        address_space: Bytes of mappings, including files and reserved space.
        data: Bytes of its own memory.
        file_size: Bytes of one file that it writes.
        threads: Threads of its user in its namespace; the kernel does not bound root's.
        open_files: Descriptors.
    """

    address_space: int = 0
    data: int = 0
    file_size: int = 0
    threads: int = 0
    open_files: int = 4096

    def apply(self) -> None:
        """Limit this process and those that it starts, for good."""
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
    """Return the bytes of memory of the machine, or of the container."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUPS:
        with suppress(OSError, ValueError):  # it says "max" where there is no limit
            most = min(most, int(Path(path).read_text()))
    return most


def room_of_machine() -> int:
    """Return the bytes that a process may reserve without using more than the machine has."""
    return memory_of_machine() + _ROOM_PER_CORE * len(os.sched_getaffinity(0))


def threads_within(memory: int) -> int:
    """Return how many threads a library may start with so many bytes of memory."""
    return max(min(len(os.sched_getaffinity(0)), memory // _ROOM_PER_CORE), 1)


def exhausted(message: str) -> bool:
    """Whether a program's error message says that the machine ran out of something."""
    return _EXHAUSTED.search(message) is not None


def shortage(error: BaseException) -> str:
    """Return what this machine ran out of, according to an error and its causes; else nothing.

    Memory does not count: a model may take more than any machine has.
    """
    for cause in causes(error):
        # A deadline and a closed connection are errors of the operating system as well.
        if isinstance(cause, OSError) and cause.errno in _SHORTAGES:
            return os.strerror(cause.errno)
    return ""


def oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed because memory ran out.

    They are those of this process's control group of version 2, or of the whole machine where it
    has none; ``root`` is where ``proc`` and ``sys`` are.
    """
    counts = [root / "proc/vmstat"]
    with suppress(OSError):
        text = (root / "proc/self/cgroup").read_text()
        if found := re.search(r"^0::/(.*)$", text, re.MULTILINE):
            counts.insert(0, root / "sys/fs/cgroup" / found[1] / "memory.events")
    for path in counts:
        with suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE):
                return int(found[1])
    return 0
