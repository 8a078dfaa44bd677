"""Commands of stlab as forks of a process that has imported MLflow already.

Importing MLflow takes longer than most commands do. One process a test worker, the template,
imports what every command does, and is forked for each command. A fork has the arguments,
environment, working directory, standard streams, signals and exit code of a process that was
started; it ends by itself or is killed like one.

What a fork does not show: how long a start takes, what a command imports, hash seeds (all forks
share the template's), limits set before Python starts, and settings that MLflow or numpy read on
import (``MLFLOW_LOGGING_LEVEL``, ``OPENBLAS_NUM_THREADS``). Tests of those start real processes.

The template has one thread, which it checks, and has made no gRPC channel: both are lost in forks.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO

__all__ = ["Forked"]


class Forked:
    """A command of stlab under way, with the part of `subprocess.Popen` that tests use.

    Attributes:
        pid: Its process.
        returncode: How it ended; None while it runs.
        stdout: What it prints.
        stderr: What it logs.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        code: str,
        log: Path | None = None,
    ) -> None:
        """Start a command.

        Args:
            arguments: ``sys.argv`` from its second entry on.
            cwd: The working directory.
            env: The whole environment.
            code: What is run, as by ``python -c``.
            log: A file that gets what it prints and logs, instead of the pipes.
        """
        job = {"argv": ["-c", *arguments], "cwd": str(cwd), "env": dict(env), "code": code}
        out, err = os.pipe(), os.pipe()
        self.stdout: IO[str] = os.fdopen(out[0])
        self.stderr: IO[str] = os.fdopen(err[0])
        self._status, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as given:
            stdin = given.enter_context(Path(os.devnull).open())
            streams = [given.enter_context(os.fdopen(end[1], "w")) for end in (out, err)]
            if log is not None:
                self.stdout.close()
                self.stderr.close()
                streams = [given.enter_context(log.open("a"))] * 2
            given.enter_context(status)
            _spawn(job, [stream.fileno() for stream in (stdin, *streams, status)])
        self.returncode: int | None = None
        self.pid = int(self._status.recv(64))

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(int(self._status.recv(64)))
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what it prints and logs, once it has ended.

        Raises:
            subprocess.TimeoutExpired: It did not end in time.
        """
        end = time.monotonic() + (timeout or 86_400)
        read = {self.stdout: b"", self.stderr: b""}
        left = [stream for stream in read if not stream.closed]
        while left:
            ready, _, _ = select.select(left, [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            for stream in ready:
                data = os.read(stream.fileno(), 1 << 16)
                read[stream] += data
                if not data:
                    left.remove(stream)
                    stream.close()
        self.wait(max(end - time.monotonic(), 0))
        return read[self.stdout].decode(), read[self.stderr].decode()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def _spawn(job: dict[str, object], descriptors: list[int]) -> None:
    control, _ = _template()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    control.sendmsg([json.dumps(job).encode()], [rights])


@cache
def _template() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the template; it ends once this process has."""
    control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.template", str(its.fileno())],
            pass_fds=[its.fileno()],
            cwd=Path(__file__).parents[2],
            # Neither numpy nor pyarrow is to start a thread.
            env={
                "OPENBLAS_NUM_THREADS": "1",
                "JE_ARROW_MALLOC_CONF": "background_thread:false",
            },
            stdin=subprocess.DEVNULL,
        )
    assert control.recv(16) == b"ready"
    return control, process
