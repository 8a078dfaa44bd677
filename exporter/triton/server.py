"""A tritonserver that belongs to this process and ends with it.

Its ports are on loopback, where other users of the machine can send inference requests but need a
key for more. A private one has no port: it serves gRPC on a socket in a folder that no other user
may enter.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
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
_IN_USE = ("already in use", "Address already in use", "failed to start")
_SOCKET = "grpc"
# struct sockaddr_un has 108 bytes for a path, the last of them a NUL.
_LONGEST_SOCKET = 107


@dataclass(slots=True)
class _Ports:
    """Ports as requested (0: any) and as taken."""

    requested: tuple[int, int, int]
    taken: tuple[int, int, int] = (0, 0, 0)

    def take(self) -> None:
        """Choose a free port wherever any will do."""
        with contextlib.ExitStack() as stack:
            chosen = []
            for port in self.requested:
                probe = stack.enter_context(socket.socket())
                if not port:
                    probe.bind(("127.0.0.1", 0))
                chosen.append(port or probe.getsockname()[1])
        self.taken = (chosen[0], chosen[1], chosen[2])


@dataclass(slots=True)
class TritonServer:
    """A running server; make one with :meth:`start`, end it with :meth:`stop` or ``with``."""

    runtime: Runtime
    log_path: Path
    _arguments: list[str]
    _ports: _Ports
    _scratch: Path
    _environment: Mapping[str, str]
    _private: bool
    _extra: Sequence[str] = ()
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

        Args:
            runtime: What to run.
            repository: A local folder, which exists, or an object-store URL.
            control_mode: ``explicit`` or ``none``.
            models: Loaded on start, in explicit mode.
            http_port: 0 for any free port, as for the other two.
            grpc_port: See ``http_port``.
            metrics_port: See ``http_port``.
            extra_args: Further flags, which replace the default ones.
            log_path: Where the server's log goes; a temporary file by default.
            environment: Its environment, in addition to the runtime's; the default has no
                secrets.
            private: Whether only this user can reach it: by gRPC, and not by a port.

        Returns:
            The server, not yet live. Where a port was left open, the URLs are final only once
            :meth:`wait_live` has returned: a port that another process took meanwhile is replaced.

        Raises:
            UnavailableError: The server cannot be started at all.
        """
        scratch = _scratch(private=private)
        ours = [
            *merge_flags(safe_flags(runtime), _only(scratch / _SOCKET) if private else ()),
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
            _ports=_Ports((http_port, grpc_port, metrics_port)),
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
        return f"127.0.0.1:{self._ports.taken[0]}"

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC endpoint, or ``unix:path`` of a private one."""
        if self._private:
            return f"unix:{self._scratch / _SOCKET}:0"
        return f"127.0.0.1:{self._ports.taken[1]}"

    @property
    def metrics_url(self) -> str:
        """``host:port`` of the Prometheus endpoint."""
        return f"127.0.0.1:{self._ports.taken[2]}"

    @property
    def keys(self) -> dict[str, str]:
        """The key of its restricted protocols, as ``protocol_keys`` of `TritonClient` takes it."""
        return {} if self._key is None else {KEY_NAME: self._key.value}

    def client(self, **options: Any) -> TritonClient:
        """Return a client with all rights.

        Args:
            options: Of `TritonClient`.
        """
        return TritonClient(self.grpc_url, protocol_keys=self.keys, **options)

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._process.server.pid if self._process is not None else None

    def wait_live(self, timeout: float = 30.0) -> None:
        """Wait until the server answers.

        Args:
            timeout: Seconds.

        Raises:
            UnavailableError: It ended, or is not live in time; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not self._is_live():
            if self._process is None or not self._process.running:
                if self._attempts < _ATTEMPTS and self._lost_a_port():
                    self._end(timeout=0)
                    self._spawn()
                    continue
                code = self._process.server.returncode if self._process is not None else None
                raise UnavailableError(
                    f"tritonserver ended on start (exit code {code}):\n{self._startup_error()}",
                    hint=self._hint(),
                )
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"tritonserver was not live after {timeout:g} s:\n{self.log_tail()}",
                    hint=self._hint(),
                )
            time.sleep(_POLL_SECONDS)

    def stop(self, timeout: float = 10.0) -> None:
        """End the server, by SIGTERM and then SIGKILL of its process group. Safe to call twice.

        Args:
            timeout: Seconds that running requests get.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
            self._ports.take()
            ports = [
                f"--{name}-port={port}"
                for name, port in zip(("http", "grpc", "metrics"), self._ports.taken, strict=True)
            ]
            try:
                self._key = ServerKey.for_server([*self._arguments, *ports])
            except ConflictError:
                if self._ports.requested[1]:
                    raise
            else:
                return [*ports, *key_flags(self._key.value, self._extra)]

    def _is_live(self) -> bool:
        running = self._process is not None and self._process.running
        if self._private:
            if not (self._scratch / f"{_SOCKET}:0").exists():
                return False
            with contextlib.suppress(TritonClientError), self.client(timeout=2) as client:
                return client.live() and running
            return False
        connection = http.client.HTTPConnection(self.http_url, timeout=2)
        try:
            connection.request("GET", "/v2/health/live")
            live = connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        # Another server may have taken the port.
        return live and self._process is not None and self._process.running

    def _lost_a_port(self) -> bool:
        tail = self.log_tail(20)
        return 0 in self._ports.requested and any(sign in tail for sign in _IN_USE)

    def _startup_error(self) -> str:
        # A wrong flag makes the server print all that it knows after the one line that matters.
        complaint, usage, _ = self.log_tail(1000).partition("Usage: tritonserver")
        return complaint.strip() if usage else self.log_tail()

    def _hint(self) -> str:
        kept = self._scratch not in self.log_path.parents
        log = f" The whole log: {self.log_path}" if kept else ""
        return f"Check the machine's memory and limits (ulimit -a), then try again.{log}"

    def _end(self, timeout: float) -> None:
        if self._process is not None:
            self._process.end(timeout)
        if self._key is not None:
            self._key.remove()
            self._key = None


def _only(path: Path) -> list[str]:
    """Return the flags of a server that listens on a socket alone, ``<path>:0``."""
    return [
        "--allow-http=false",
        "--allow-metrics=false",
        f"--grpc-address=unix:{path}",
        "--grpc-port=0",
    ]


def _scratch(*, private: bool) -> Path:
    """Return a new folder that no other user may enter, of a name short enough for a socket."""
    scratch = Path(tempfile.mkdtemp(prefix="stlab-triton-"))
    if private and len(bytes(scratch / f"{_SOCKET}:0")) > _LONGEST_SOCKET:
        scratch.rmdir()
        scratch = Path(tempfile.mkdtemp(prefix="stlab-triton-", dir="/tmp"))
    return scratch
