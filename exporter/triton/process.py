"""A tritonserver process that cannot outlive its owner.

The server belongs to a process group that a small guardian leads. The guardian waits on a pipe
whose other end only the owner holds, so that the group is killed and its shared memory removed
however the owner ends, ``kill -9`` included. (A parent-death signal would not do: it is sent when
the *thread* that started the server ends.)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from exporter.errors import UnavailableError
from exporter.triton import hidden_flags
from exporter.triton.hidden_flags import hide
from exporter.triton.runtime import Runtime

__all__ = ["GuardedProcess"]

# The first line is the server's pid. A second one says that the server has ended; without it the
# owner is gone, and the server is killed and its end waited for (a while: some containers' first
# process never buries the dead). Killing 0 ends the whole group, the guardian included.
_GUARDIAN = """
trap '' INT TERM HUP
read -r server
read -r ended || {
  kill -9 "$server"
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$server" && sleep 0.05
  done
  rm -rf "$2"
}
rm -f "/dev/shm/$1"*
kill -9 0
"""


@dataclass(slots=True)
class GuardedProcess:
    """A running server and its guardian."""

    server: subprocess.Popen[bytes]
    guardian: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        runtime: Runtime,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: IO[bytes] | None,
        scratch: Path,
    ) -> GuardedProcess:
        """Start a server with these flags, whose log goes to ``output`` or this process's own.

        The environment is merged with the runtime's. The guardian removes ``scratch``, the owner's
        folder, if the owner is killed.

        Raises:
            UnavailableError: It cannot be started.
        """
        prefix = f"stlab-{os.getpid()}-{secrets.token_hex(4)}-"
        shared_memory = f"--backend-config=python,shm-region-prefix-name={prefix}"
        guardian = None
        try:
            guardian = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDIAN, "guardian", prefix, str(scratch)],
                # Explicit: this process's may move in memory while another thread sets it, and a
                # process that is started just then fails with EFAULT.
                env={"PATH": os.environ.get("PATH", os.defpath)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            command, hidden = hide([str(runtime.executable), *arguments, shared_memory])
            if hidden:
                command = [sys.executable, "-I", "-S", hidden_flags.__file__, *command]
            server = subprocess.Popen(
                command,
                env={**environment, **runtime.environment, **hidden},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=guardian.pid,
            )
        except OSError as error:
            if guardian is not None:
                _release(guardian, b"none\nended\n")
            raise UnavailableError(
                f"tritonserver cannot be started: {error}.",
                hint="Check the tritonserver on PATH; without one, the embedded server is used.",
            ) from error
        # Its threads pass requests on; a woken thread need not preempt the one that woke it.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(server.pid, os.SCHED_BATCH, os.sched_param(0))
        if guardian.stdin is not None:
            guardian.stdin.write(f"{server.pid}\n".encode())
            guardian.stdin.flush()
        return cls(server, guardian)

    @property
    def running(self) -> bool:
        """Whether the server has not ended."""
        return self.server.poll() is None

    def end(self, timeout: float) -> None:
        """End the server and whatever it started, and remove its shared memory.

        It gets ``timeout`` seconds to end by itself; then it is killed.
        """
        if self.running and timeout > 0:
            self.server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(timeout)
        self.server.kill()
        self.server.wait()
        _release(self.guardian, b"ended\n")


def _release(guardian: subprocess.Popen[bytes], last_word: bytes) -> None:
    """Let go of a guardian, which cleans up and ends its group."""
    if guardian.stdin is not None and not guardian.stdin.closed:
        with contextlib.suppress(OSError):
            guardian.communicate(last_word)
