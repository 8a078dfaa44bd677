"""Runs the ``stlab`` commands as a user does, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triton_client import DeadlineExceeded, TritonClient

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DemoError", "Server", "export", "start_server"]

_STOP_SECONDS = 20.0
_POLL_SECONDS = 1.0


class DemoError(Exception):
    """A step of the demo failed.

    Args:
        message: What failed, with what to do about it.
        exit_code: What the demo exits with.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def export(
    model: str, alias: str, *, repository: str, environment: dict[str, str]
) -> dict[str, Any]:
    """Run ``stlab export`` and return its JSON report; its progress goes to our stderr.

    Raises:
        DemoError: It failed, or printed no report.
    """
    command = [*_stlab(), "export", model, "--alias", alias, "--repository", repository, "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise DemoError(
            f"stlab export exited with {done.returncode} and printed no report",
            done.returncode or 1,
        ) from error
    if done.returncode != 0:
        kind = (report.get("error") or {}).get("kind", "unexpected")
        raise DemoError(f"the export stopped ({kind}); its reason is above", done.returncode)
    return report


@dataclass(frozen=True, slots=True)
class Server:
    """A running ``stlab serve``.

    Attributes:
        process: The process.
        url: Where gRPC is served, ``host:port``.
        log: What it prints.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_until_ready(self, timeout: float) -> None:
        """Return once every model of the repository is ready.

        Raises:
            DemoError: It ended, or was not ready in ``timeout`` seconds.
        """
        waited = 0.0
        with TritonClient(self.url) as client:
            while self.process.poll() is None and waited < timeout:
                try:
                    return client.wait_until_ready(_POLL_SECONDS)
                except DeadlineExceeded:
                    waited += _POLL_SECONDS
        state = "is not ready" if self.process.poll() is None else "ended"
        raise DemoError(f"the server {state}; the end of {self.log}:\n{self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-15:])


@contextmanager
def start_server(repository: str, *, log: Path, environment: dict[str, str]) -> Iterator[Server]:
    """Run ``stlab serve`` on free ports, and stop it at the end whatever happens.

    Args:
        repository: The model repository, a folder or a URL.
        log: File for what the server prints.
        environment: The environment that it runs in.

    Yields:
        The server, started but maybe not ready yet.
    """
    http, grpc, metrics = _free_ports(3)
    ports = ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_stlab(), "serve", "--repository", repository, *ports],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            # A group of its own: an interrupt reaches us first, and we stop the server below.
            start_new_session=True,
        )
    try:
        yield Server(process, f"127.0.0.1:{grpc}", log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _stlab() -> list[str]:
    script = Path(sys.executable).with_name("stlab")
    return [str(script)] if script.exists() else [sys.executable, "-m", "exporter.cli"]


def _free_ports(count: int) -> list[str]:
    """Return ports that nothing listens on; all are held until the last one is known."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [str(entry.getsockname()[1]) for entry in sockets]
