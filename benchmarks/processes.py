"""Runs a command as a whole process and measures what it took: seconds, and memory at its peak."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.guard import marked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "CommandError",
    "MemoryWatch",
    "Usage",
    "busy_seconds",
    "cpu_seconds",
    "measure",
    "server_bytes",
]

_SAMPLE_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


class CommandError(Exception):
    """A measured command did not do what it was asked; the message holds its last words."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run took.

    Attributes:
        seconds: Wall clock, from before the start to after the end.
        cpu_seconds: Processor time of the process and of all that it waited for: what is left of
            the wall clock's meaning where other work shares the machine.
        peak_bytes: Peak RSS of the process, ``ru_maxrss`` from ``wait4``. The kernel counts the
            descendants it waited for as well, and gives the largest, so that the process's own
            peak is at most this.
        descendants: Peak RSS of every program that it started, by name, as last seen in ``/proc``.
        together_bytes: The largest sum of proportional set sizes (shared pages counted once) over
            the process and its descendants, of samples a tenth of a second apart.
        stdout: What it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    descendants: Mapping[str, int]
    together_bytes: int
    stdout: str

    @property
    def server_bytes(self) -> int:
        """Peak RSS of the largest process of a tritonserver that it started; 0 without one."""
        return server_bytes(self.descendants)


def server_bytes(descendants: Mapping[str, int]) -> int:
    """Return the peak of a tritonserver's largest process; its models live in ``…_stub``."""
    return max((size for name, size in descendants.items() if name.startswith("triton")), default=0)


def measure(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
) -> Usage:
    """Run a command to its end.

    Keep the caller small: until a new process executes its program, the memory of the one that
    started it counts as its own.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        environment: Its environment.
        timeout: Seconds until it is killed.

    Raises:
        CommandError: It exits with another code than 0, or not in time.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=marked(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            start_new_session=True,
        )
        killer = threading.Timer(timeout, process.kill)
        killer.start()
        try:
            with MemoryWatch.over(process.pid) as watch:
                _, status, resources = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - begin
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        log.seek(0)
        stdout = output.read().decode()
        if process.returncode != 0:
            words = (log.read().decode(errors="replace") + stdout)[-2000:]
            raise CommandError(f"{' '.join(command)}\nexited with {process.returncode}:\n{words}")
    return Usage(
        seconds=seconds,
        cpu_seconds=resources.ru_utime + resources.ru_stime,
        peak_bytes=resources.ru_maxrss * 1024,
        descendants=watch.descendants,
        together_bytes=watch.together_bytes,
        stdout=stdout,
    )


@dataclass(slots=True)
class MemoryWatch:
    """Looks at a process and its descendants until it is told to stop.

    Attributes:
        root: The process.
        descendants: Peak RSS by program; the largest where several have the same name.
        together_bytes: The largest sum of proportional set sizes.
    """

    root: int
    descendants: dict[str, int] = field(default_factory=dict)
    together_bytes: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def over(cls, pid: int) -> Iterator[MemoryWatch]:
        """Watch a process for as long as the block runs."""
        watch = cls(pid)
        thread = threading.Thread(target=watch._run, daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            watch._done.set()
            thread.join()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            total = 0
            for pid in _tree(self.root):
                status, memory = _fields(pid, "status"), _fields(pid, "smaps_rollup")
                total += _kilobytes(memory.get("Pss", "0"))
                peak = _kilobytes(status.get("VmHWM", "0"))
                if pid != self.root and peak:
                    name = status["Name"]
                    self.descendants[name] = max(peak, self.descendants.get(name, 0))
            self.together_bytes = max(self.together_bytes, total)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a running process and its descendants have had so far."""
    ticks = 0
    for each in _tree(pid):
        # The name, which may hold anything, ends with the last bracket; see proc(5).
        fields = _text(Path(f"/proc/{each}/stat")).rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:13])
    return ticks / _TICKS


def busy_seconds() -> float:
    """Return the processor time that all of the machine's processes have had so far."""
    user, nice, system, _idle, _wait, interrupts, soft = _text(Path("/proc/stat")).split()[1:8]
    return sum(int(field) for field in (user, nice, system, interrupts, soft)) / _TICKS


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [c for thread in threads for c in _text(thread / "children").split()]
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _fields(pid: int, file: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(Path(f"/proc/{pid}/{file}")).splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    """Return what a file holds; nothing where its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _kilobytes(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024
