"""Serving in the foreground, and the launcher that is tritonserver."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton

from exporter.commands import ServeRequest, serve
from exporter.errors import NotFoundError
from exporter.triton.connection import connect
from exporter.triton.launcher import install_launcher
from tests.integration.triton.test_server import (
    REPOSITORY_ROOT,
    add_model,
    free_port,
    listens,
    shared_memory,
    status,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from exporter.triton.runtime import Runtime

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("runtime")]

SERVE = """
import sys
from exporter.commands import ServeRequest, serve
ports = (int(port) for port in sys.argv[2:5])
sys.exit(serve(ServeRequest(sys.argv[1], "", *ports, tuple(sys.argv[5:]))))
"""


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_ready(process, port)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            if status(f"127.0.0.1:{port}", "/v2/health/ready") == 200:
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    pytest.fail("the server is not ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    add_model(tmp_path)
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-c", SERVE, str(tmp_path), *map(str, ports)]
    with running(command, ports[0]) as process:
        assert wait_until(lambda: listens(f"127.0.0.1:{ports[2]}"))
        process.send_signal(number)
        assert process.wait(20) == 0
        assert not shared_memory(process.pid)


def test_further_flags_win(tmp_path: Path) -> None:
    add_model(tmp_path)
    ports = [free_port() for _ in range(4)]
    further = ["--id=by-another-name", "--http-port", str(ports[3])]
    command = [sys.executable, "-c", SERVE, str(tmp_path), *map(str, ports[:3]), *further]
    url = f"http://127.0.0.1:{ports[3]}/v2"
    with running(command, ports[3]), urllib.request.urlopen(url, timeout=5) as response:
        assert b"by-another-name" in response.read()


def test_models_can_be_loaded_while_it_serves(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-c", SERVE, str(tmp_path), *map(str, ports)]
    with running(command, ports[0]):
        add_model(tmp_path)
        with connect(f"localhost:{ports[1]}") as client:
            client.repository.load("identity")
            assert client.model("identity").ready()


def answers_beyond(port: int) -> bool:
    """Whether a port answers at an address of this machine that is not 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.2", port)) == 0


def test_a_missing_repository(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        serve(ServeRequest(str(tmp_path / "missing")))


def test_the_launcher_is_tritonserver(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY_ROOT))
    launcher = install_launcher(tmp_path)
    assert launcher is not None
    add_model(tmp_path / "repository")
    ports = [free_port() for _ in range(3)]
    command = [
        str(launcher),
        f"--model-repository={tmp_path / 'repository'}",
        *("--http-port", str(ports[0]), "--grpc-port", str(ports[1])),
        f"--metrics-port={ports[2]}",
    ]
    with running(command, ports[0]) as process:
        with triton.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
            given = triton.InferInput("x", [2, 4], "FP32")
            value = np.arange(8, dtype=np.float32).reshape(2, 4)
            given.set_data_from_numpy(value)
            np.testing.assert_array_equal(client.infer("identity", [given]).as_numpy("y"), value)
        assert not any(answers_beyond(port) for port in ports)
        process.terminate()
        assert process.wait(20) == 0
    completed = subprocess.run([str(launcher), "--help"], capture_output=True, check=False)
    assert b"--model-repository" in completed.stdout + completed.stderr
