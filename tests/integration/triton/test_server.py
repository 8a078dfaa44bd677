"""A private server: its start, its end, and whoever is in its way."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from exporter.errors import UnavailableError
from exporter.triton.server import TritonServer
from tests.integration.triton.triton_onnx_models import config, entry, identity
from tests.support.ports import free_port

if TYPE_CHECKING:
    from exporter.triton.runtime import Runtime

pytestmark = pytest.mark.triton

REPOSITORY_ROOT = Path(__file__).parents[3]


def add_model(repository: Path, name: str = "identity") -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(identity(), folder / "model.onnx")
    text = config([entry("x", [4])], [entry("y", [4])])
    (folder.parent / "config.pbtxt").write_text(text)


def status(url: str, path: str) -> int:
    with urllib.request.urlopen(f"http://{url}{path}", timeout=5) as response:
        return int(response.status)


def shared_memory(pid: int) -> list[str]:
    """The segments of the servers that a process owns."""
    return [path.name for path in Path("/dev/shm").glob(f"stlab-{pid}-*")]


def listens(url: str) -> bool:
    host, port = url.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def wait_until(condition: object, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_start_and_stop(runtime: Runtime, tmp_path: Path) -> None:
    # The python backend passes the path to a shell, unquoted.
    repository = tmp_path / "a; repository"
    add_model(repository)
    log = tmp_path / "server.log"
    with TritonServer.start(runtime, str(repository), models=["identity"], log_path=log) as server:
        server.wait_live()
        assert status(server.http_url, "/v2/health/ready") == 200
        assert status(server.http_url, "/v2/models/identity/ready") == 200
        assert wait_until(lambda: listens(server.metrics_url))
        assert status(server.metrics_url, "/metrics") == 200
        assert listens(server.grpc_url)
        pid = server.pid
        assert pid is not None
        # Other users cannot read what requests hold.
        segments = [Path("/dev/shm", name) for name in shared_memory(os.getpid())]
        assert [stat.S_IMODE(path.stat().st_mode) for path in segments] == [0o600]
        assert "successfully loaded" in server.log_tail(100)
    assert not is_running(pid)
    assert not shared_memory(os.getpid())
    assert log.exists()
    server.stop()


def test_stop_lets_the_server_end_by_itself(runtime: Runtime, tmp_path: Path) -> None:
    server = TritonServer.start(runtime, str(tmp_path), log_path=tmp_path / "server.log")
    server.wait_live()
    server.stop()
    assert "Waiting for in-flight requests" in (tmp_path / "server.log").read_text()


def test_it_listens_on_loopback_only(runtime: Runtime, tmp_path: Path) -> None:
    with TritonServer.start(runtime, str(tmp_path)) as server:
        server.wait_live()
        ports = {int(url.split(":")[1]) for url in (server.http_url, server.grpc_url)}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                address, port = line.split()[1].split(":")
                if int(port, 16) in ports and line.split()[3] == "0A":
                    assert address.endswith("0100007F")


def test_a_server_that_dies_is_reported_with_its_log(runtime: Runtime, tmp_path: Path) -> None:
    with (
        TritonServer.start(runtime, str(tmp_path), extra_args=["--no-such-flag"]) as server,
        pytest.raises(UnavailableError) as caught,
    ):
        server.wait_live()
    assert "tritonserver ended on start" in caught.value.message
    assert "no-such-flag" in caught.value.message


def test_a_model_that_is_refused_is_reported(runtime: Runtime, tmp_path: Path) -> None:
    add_model(tmp_path)
    (tmp_path / "identity" / "config.pbtxt").write_text(
        config([entry("x", [5])], [entry("y", [4])])
    )
    with (
        TritonServer.start(runtime, str(tmp_path), control_mode="none") as server,
        pytest.raises(UnavailableError, match="failed to load all models"),
    ):
        server.wait_live()


def test_a_lost_port_is_replaced(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        lost = taken.getsockname()[1]
        original = socket.socket.getsockname
        answers = iter([("127.0.0.1", lost)])
        monkeypatch.setattr(
            "exporter.triton.server.socket.socket", lambda: _Probe(original, answers)
        )
        with TritonServer.start(runtime, str(tmp_path)) as server:
            assert server.http_url.endswith(f":{lost}")
            monkeypatch.undo()
            server.wait_live()
            assert not server.http_url.endswith(f":{lost}")
            assert status(server.http_url, "/v2/health/live") == 200


class _Probe(socket.socket):
    """A socket that tells a port that somebody else has, once."""

    def __init__(self, original: object, answers: object) -> None:
        super().__init__()
        self._original, self._answers = original, answers

    def getsockname(self) -> object:
        return next(self._answers, None) or self._original(self)  # type: ignore[call-overload,operator]


def test_a_port_that_was_asked_for_is_not_replaced(runtime: Runtime, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            TritonServer.start(
                runtime,
                str(tmp_path),
                http_port=port,
                grpc_port=free_port(),
                metrics_port=free_port(),
            ) as server,
            pytest.raises(UnavailableError),
        ):
            server.wait_live()


OWNER = """
import sys, time
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
runtime = ensure_runtime(release(DEFAULT_RELEASE))
server = TritonServer.start(runtime, sys.argv[1], models=["identity"])
server.wait_live()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_nothing_outlives_an_owner_that_is_killed(runtime: Runtime, tmp_path: Path) -> None:
    add_model(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert shared_memory(owner.pid)
        owner.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not is_running(pid))
    assert wait_until(lambda: not shared_memory(owner.pid))
    assert wait_until(lambda: not any(is_running(int(child)) for child in children))
