"""A real ``mlflow server`` on the loopback interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.empty_registry import copy_empty_registry
from tests.support.ports import free_port
from tests.support.registering import RegistryFixture
from tests.support.running import environment

_START_SECONDS = 240


@dataclass(frozen=True)
class Served(RegistryFixture):
    """A registry behind a server.

    Attributes:
        address: Its URL.
        pid: The server's process, which leads a group of its own.
    """

    address: str = ""
    pid: int = 0

    @property
    def uri(self) -> str:
        return self.address


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Served]:
    """Start a server with its artifacts proxied, and end it."""
    copy_empty_registry(folder)
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"),
        ],
        cwd=folder,
        # Its job runners are five processes that import MLflow each.
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None
                assert time.monotonic() < end, f"mlflow server is not up in {_START_SECONDS} s"
                time.sleep(0.1)
        yield Served(folder, address, process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
