"""A tritonserver that belongs to this process and ends with it.

Its ports are on loopback, where other users of the machine can send inference requests but need a
key for more. A private one has no port: it serves gRPC on a socket in a folder that no other user
may enter.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from exporter.errors import ConflictError, UnavailableError
from exporter.system.environment import minimal_environment
from exporter.triton.flags import KEY_NAME, key_flags, merge_flags, safe_flags
from exporter.triton.keys import ServerKey
from exporter.triton.process import GuardedProcess
from exporter.triton.runtime import Runtime
from triton_client import TritonClient
from triton_client.errors import TritonClientError

__all__ = ["TritonServer"]

_ATTEMPTS = 4
_POLL_SECONDS = 0.01
_IN_USE = ("already in use", "failed to start")
_SOCKET = "grpc"


@dataclass(slots=True)
class TritonServer:
    """A running server; make one with :meth:`start`, end it with :meth:`stop` or ``with``."""

    runtime: Runtime
    log_path: Path
    _arguments: list[str]
    _requested_ports: tuple[int, ...]
    _scratch: Path
    _environment: Mapping[str, str]
    _private: bool
    _extra: Sequence[str]
    _ports: Sequence[int] = (0, 0, 0)
    _key: ServerKey | None = None
    _process: GuardedProcess | None = None
    _attempts: int = 0

    @classmethod
    def start(
        cls,
        runtime: Runtime,
        repository: str,
        *,
        control_mode: str = "explicit",
        models: Sequence[str] = (),
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        extra_args: Sequence[str] = (),
        log_path: Path | None = None,
        environment: Mapping[str, str] | None = None,
        private: bool = False,
    ) -> TritonServer:
        """Start a server and return at once, so that the caller works while it comes up.

        It serves a local folder, which exists, or an object-store URL; a port of 0 is any free one.
        The flags of ``extra_args`` replace the default ones. The log is a temporary file by
        default, and the environment, which the runtime's is merged over, has no secrets. Only this
        user can reach a private server: by gRPC, and not by a port.

        Returns:
            The server, not yet live. Where a port was left open, the URLs are final only once
            :meth:`wait_live` has returned: a port that another process took meanwhile is replaced.

        Raises:
            UnavailableError: The server cannot be started at all.
        """
        scratch = _scratch(private=private)
        # A private server listens on a socket alone, ``<path>:0``.
        address = ["--allow-http=false", "--allow-metrics=false", "--grpc-port=0"]
        address.append(f"--grpc-address=unix:{scratch / _SOCKET}")
        ours = [
            *merge_flags(safe_flags(runtime), address if private else []),
            f"--model-repository={repository}",
            f"--model-control-mode={control_mode}",
            *(f"--load-model={model}" for model in models),
            "--exit-timeout-secs=5",
            # Looking for GPUs to measure costs a part of a second on start.
            "--allow-gpu-metrics=false",
            "--allow-cpu-metrics=false",
        ]
        server = cls(
            runtime=runtime,
            log_path=log_path or scratch / "tritonserver.log",
            _arguments=merge_flags(ours, extra_args),
            _requested_ports=(http_port, grpc_port, metrics_port),
            _scratch=scratch,
            _environment=minimal_environment() if environment is None else environment,
            _private=private,
            _extra=extra_args,
        )
        try:
            server._spawn()
        except BaseException:
            server.stop(timeout=0)
            raise
        return server

    @property
    def http_url(self) -> str:
        """``host:port`` of the HTTP endpoint."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC endpoint, or ``unix:path`` of a private one."""
        if self._private:
            return f"unix:{self._scratch / _SOCKET}:0"
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        """``host:port`` of the Prometheus endpoint."""
        return f"127.0.0.1:{self._ports[2]}"

    @property
    def keys(self) -> dict[str, str]:
        """The key of its restricted protocols, as ``protocol_keys`` of `TritonClient` takes it."""
        return {} if self._key is None else {KEY_NAME: self._key.value}

    def client(self, **options: Any) -> TritonClient:
        """Return a client with all rights; the options are those of `TritonClient`."""
        return TritonClient(self.grpc_url, protocol_keys=self.keys, **options)

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._process.server.pid if self._process is not None else None

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.running

    def wait_live(self, timeout: float = 30.0) -> None:
        """Wait until the server answers, for at most ``timeout`` seconds.

        Raises:
            UnavailableError: It ended, or is not live in time; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout
        # Another server may have taken the port, and answer.
        while not (self._answers() and self._running):
            if not self._running:
                lost = 0 in self._requested_ports and any(s in self.log_tail() for s in _IN_USE)
                if lost and self._attempts < _ATTEMPTS:
                    self._end(timeout=0)
                    self._spawn()
                    continue
                code = self._process and self._process.server.returncode
                # A wrong flag makes it print all that it knows after the one line that matters.
                complaint, usage, _ = self.log_tail(1000).partition("Usage: tritonserver")
                end = complaint.strip() if usage else self.log_tail()
                raise self._failure(f"ended on start (exit code {code}):\n{end}")
            if time.monotonic() > deadline:
                raise self._failure(f"was not live after {timeout:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def stop(self, timeout: float = 10.0) -> None:
        """End the server, by SIGTERM and then SIGKILL of its process group. Safe to call twice.

        Running requests get ``timeout`` seconds.
        """
        self._end(timeout)
        # With it goes the log, unless it has a path of its own.
        shutil.rmtree(self._scratch, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last ``lines`` lines of the server's log; empty once it is removed."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        # Its requests have no client any more, and unloading its models would take seconds.
        self.stop(timeout=0)

    def _spawn(self) -> None:
        self._attempts += 1
        arguments = [*self._arguments, *([] if self._private else self._take_ports())]
        with self.log_path.open("ab") as log:
            self._process = GuardedProcess.start(
                self.runtime,
                arguments,
                environment=self._environment,
                output=log,
                scratch=self._scratch,
            )

    def _take_ports(self) -> list[str]:
        """Choose ports and a key, and return the flags that say them."""
        while True:
            with contextlib.ExitStack() as stack:
                probes = [stack.enter_context(socket.socket()) for _ in self._requested_ports]
                for probe in probes:
                    probe.bind(("127.0.0.1", 0))
                free = [probe.getsockname()[1] for probe in probes]
            pairs = zip(self._requested_ports, free, strict=True)
            self._ports = [requested or other for requested, other in pairs]
            http, grpc, metrics = self._ports
            ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
            try:
                self._key = ServerKey.for_server([*self._arguments, *ports])
            except ConflictError:
                if self._requested_ports[1]:
                    raise
            else:
                return [*ports, *key_flags(self._key.value, self._extra)]

    def _answers(self) -> bool:
        if self._private:
            if (self._scratch / f"{_SOCKET}:0").exists():
                with contextlib.suppress(TritonClientError), self.client(timeout=2) as client:
                    return client.live()
            return False
        try:
            with contextlib.closing(HTTPConnection(self.http_url, timeout=2)) as connection:
                connection.request("GET", "/v2/health/live")
                return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def _failure(self, what: str) -> UnavailableError:
        kept = self._scratch not in self.log_path.parents
        log = f" The whole log: {self.log_path}" if kept else ""
        hint = f"Check the machine's memory and limits (ulimit -a), then try again.{log}"
        return UnavailableError(f"tritonserver {what}", hint=hint)

    def _end(self, timeout: float) -> None:
        if self._process is not None:
            self._process.end(timeout)
        if self._key is not None:
            self._key.remove()
            self._key = None


def _scratch(*, private: bool) -> Path:
    """Return a new folder that no other user may enter, of a name short enough for a socket."""
    scratch = Path(tempfile.mkdtemp(prefix="stlab-triton-"))
    # struct sockaddr_un has 108 bytes for a path, the last of them a NUL.
    if private and len(bytes(scratch / f"{_SOCKET}:0")) >= 108:
        scratch.rmdir()
        scratch = Path(tempfile.mkdtemp(prefix="stlab-triton-", dir="/tmp"))
    return scratch
