"""Real nginx and haproxy on loopback, as child processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Proxy", "grpc_haproxy", "grpc_nginx", "http_nginx"]

# As root, nginx would hand its workers to another user, who may not read the test's folder.
_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {settings}
  server {{
    listen 127.0.0.1:{port}{protocol};
    {locations}
  }}
}}
"""
_UPGRADES = """
  client_max_body_size 32m;
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  proxy_http_version 1.1;
"""
_HEADERS = """
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
"""
_HAPROXY = """
global
  maxconn 4096
  {settings}
defaults
  mode http
  timeout connect 5s
  timeout client {timeout}
  timeout server {timeout}
frontend front
  bind 127.0.0.1:{port} proto h2
  default_backend back
backend back
  server triton 127.0.0.1:{upstream} proto h2
"""


class Proxy:
    """A proxy that runs.

    Attributes:
        url: Where it listens: host and port.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = process

    def reload(self) -> None:
        """Let it read its configuration again: old connections get a GOAWAY."""
        os.kill(self._process.pid, signal.SIGHUP)


@contextmanager
def grpc_nginx(upstream: int, folder: Path, settings: str = "") -> Iterator[Proxy]:
    """Run nginx in front of a gRPC port, with more settings of its ``http`` block."""
    locations = f"location / {{ grpc_pass grpc://127.0.0.1:{upstream}; }}"
    with _nginx(folder, locations, settings, protocol=" http2") as proxy:
        yield proxy


@contextmanager
def http_nginx(upstream: int, folder: Path) -> Iterator[str]:
    """Run nginx in front of an HTTP port, below path prefixes.

    Returns:
        Its URL; ``/stripped`` and ``/kept`` name themselves in ``X-Forwarded-Prefix``, and
        ``/named`` names the scheme instead.
    """
    locations = "".join(
        f"""
    location /{name}/ {{
      proxy_pass http://127.0.0.1:{upstream}{path};
      proxy_set_header {header};
      {_HEADERS}
    }}"""
        for name, path, header in (
            ("stripped", "/", "X-Forwarded-Prefix /stripped"),
            ("kept", "", "X-Forwarded-Prefix /kept"),
            ("named", "/", "X-Forwarded-Proto $scheme"),
        )
    )
    with _nginx(folder, locations, _UPGRADES) as proxy:
        yield f"http://{proxy.url}"


@contextmanager
def grpc_haproxy(
    upstream: int, folder: Path, settings: str = "", timeout: str = "60s"
) -> Iterator[Proxy]:
    """Run haproxy in front of a gRPC port, with more settings of its ``global`` block."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        _HAPROXY.format(settings=settings, timeout=timeout, port=port, upstream=upstream)
    )
    with _running([_program("haproxy"), "-db", "-q", "-f", str(config)], port) as proxy:
        yield proxy


@contextmanager
def _nginx(folder: Path, locations: str, settings: str, protocol: str = "") -> Iterator[Proxy]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            user="user root;" if os.getuid() == 0 else "",
            folder=folder,
            settings=settings,
            port=port,
            protocol=protocol,
            locations=locations,
        )
    )
    command = [_program("nginx"), "-e", str(folder / "start.log"), "-c", str(config)]
    with _running([*command, "-p", str(folder)], port) as proxy:
        yield proxy


@contextmanager
def _running(command: list[str], port: int) -> Iterator[Proxy]:
    with subprocess.Popen(command) as process:
        try:
            _wait_for(port, process)
            yield Proxy(f"127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 20
    while True:
        assert process.poll() is None, f"{process.args} ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < limit, f"{process.args} does not listen"
            time.sleep(0.05)
        else:
            return


def _program(name: str) -> str:
    """A check that cannot be done must not look as if it passed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert path, f"{name} is missing: apt-get install {name}, or tests/tools/install.sh as root"
    return path
