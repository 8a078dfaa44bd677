"""What other users of the machine, and web pages, can do to our servers, and what they cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from exporter.errors import ConflictError
from exporter.triton.connection import connect
from exporter.triton.keys import LocalKey
from exporter.triton.launcher import install_launcher
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton.test_serve import SERVE, running
from tests.integration.triton.test_server import REPOSITORY_ROOT, add_model
from tests.support.ports import free_port
from triton_client import TritonClient

if TYPE_CHECKING:
    from exporter.triton.runtime import Runtime

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("runtime", "cache")]

NOBODY = 65534
LOAD = "/v2/repository/models/identity/load"
CLOSED_TO_ALL = {
    "/v2/systemsharedmemory/region/r/register": "POST",
    "/v2/systemsharedmemory/status": "GET",
    "/v2/cudasharedmemory/region/r/register": "POST",
    "/v2/trace/setting": "POST",
    "/v2/models/identity/trace/setting": "POST",
    "/v2/logging": "POST",
}
CLOSED = {LOAD: "POST", "/v2/repository/models/identity/unload": "POST", **CLOSED_TO_ALL}
OPEN = {"/v2/health/live": "GET", "/v2/models/identity": "GET", "/v2/models/identity/infer": "POST"}
INPUTS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture
def cache(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime is there; a key of the developer's is not."""
    monkeypatch.delenv("STLAB_TRITON_KEY", raising=False)


def as_a_web_page(url: str, path: str, method: str) -> int:
    """The status of a request that a browser sends for any page, without asking the server."""
    headers = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
    body = json.dumps(INPUTS if path.endswith("/infer") else {}).encode()
    request = urllib.request.Request(
        f"http://{url}{path}", body if method == "POST" else None, headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def as_another_user(do: Callable[[], bool]) -> bool:
    """What a function returns to another user of this machine."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = 0 if do() else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), "it raised"
    return code == 0


def grpc_refusals(url: str) -> set[grpc.StatusCode]:
    """How calls without a key end, by their status."""
    name = "identity"
    codes = set()
    with grpc.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest(model_name=name)),
            (stub.RepositoryModelUnload, service_pb2.RepositoryModelUnloadRequest(model_name=name)),
            (
                stub.SystemSharedMemoryRegister,
                service_pb2.SystemSharedMemoryRegisterRequest(name="r", key="/r", byte_size=8),
            ),
            (stub.TraceSetting, service_pb2.TraceSettingRequest()),
            (stub.LogSettings, service_pb2.LogSettingsRequest()),
        ):
            try:
                call(request, timeout=10)
                codes.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
    return codes


def test_who_has_no_key_can_only_infer(runtime: Runtime, tmp_path: Path) -> None:
    add_model(tmp_path)
    with TritonServer.start(runtime, str(tmp_path), models=["identity"]) as server:
        server.wait_live()
        with server.client() as client:
            client.wait_until_ready()
        for path, method in CLOSED.items():
            assert as_a_web_page(server.http_url, path, method) == 403, path
        for path, method in OPEN.items():
            assert as_a_web_page(server.http_url, path, method) == 200, path
        assert grpc_refusals(server.grpc_url) == {grpc.StatusCode.UNAVAILABLE}
        # Of the same user, stlab's own commands may do everything, and need not be told how.
        with connect(server.grpc_url) as client:
            client.repository.load("identity")
        assert as_another_user(lambda: LocalKey(int(server.grpc_url.split(":")[1]))() == {})
        (key,) = server.keys.values()
        # Nothing that the server writes down has it.
        assert key not in server.log_path.read_text()
    assert LocalKey(int(server.grpc_url.split(":")[1]))() == {}


def test_the_private_server_is_out_of_reach(runtime: Runtime, tmp_path: Path) -> None:
    """It has no port, and nobody else may enter the folder of its socket."""
    with TritonServer.start(runtime, str(tmp_path), private=True) as server:
        server.wait_live()
        path = server.grpc_url.removeprefix("unix:")
        with server.client() as client:
            assert client.repository.index() == ()
        assert not listening(server.pid)
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        assert as_another_user(lambda: not connects(path))
        assert connects(path)
    assert not Path(path).parent.exists()


PROVING = """
import ctypes, os, sys
from pathlib import Path
from exporter.proving.proving_server import PrivateServer
from exporter.triton.releases import DEFAULT_RELEASE, release

with PrivateServer.open(Path(sys.argv[1]), release(DEFAULT_RELEASE), print) as ground:
    with ground.client() as client:
        assert client.live()
    print(ctypes.CDLL(None).prctl(3))  # PR_GET_DUMPABLE
    for pid in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in pid.read_text().split():
            print(Path(f"/proc/{child}/environ").read_bytes())
"""


def test_the_proving_server_sees_no_secret_of_the_exporter(tmp_path: Path) -> None:
    """In its own environment, and in that of the process which started it."""
    secret = "a-secret-of-the-exporter"
    done = subprocess.run(
        [sys.executable, "-c", PROVING, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT), "MLFLOW_TRACKING_TOKEN": secret},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    dumpable, *environments = done.stdout.splitlines()
    # Only a process that is dumpable can be looked into by others of its user, but for root's.
    assert dumpable == "0"
    assert any("LD_LIBRARY_PATH" in line for line in environments)
    assert secret not in done.stdout


def listening(pid: int | None) -> list[str]:
    """The TCP ports on which a process waits for connections."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            sockets.add(str(file.readlink()))
    return [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    ]


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except PermissionError:
            return False
    return True


def serve_command(repository: Path, ports: list[int], *flags: str) -> list[str]:
    return [sys.executable, "-c", SERVE, str(repository), *map(str, ports), *flags]


def test_stlab_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_model(tmp_path)
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOME_PASSWORD"):
        monkeypatch.setenv(name, "a-secret-of-the-exporter")
    ports = [free_port() for _ in range(3)]
    # A flag of the user's closes more, and opens nothing.
    flag = "--http-restricted-api=statistics:mine=x"
    with running(serve_command(tmp_path, ports, flag), ports[0]) as process:
        url = f"127.0.0.1:{ports[0]}"
        for path, method in CLOSED.items():
            assert as_a_web_page(url, path, method) == 403, path
        assert as_a_web_page(url, "/v2/models/stats", "GET") == 403
        assert as_a_web_page(url, "/v2/models/identity/infer", "POST") == 200
        with connect(f"localhost:{ports[1]}") as client:
            client.repository.load("identity")
        with pytest.raises(ConflictError, match=f"gRPC port {ports[1]}"):
            TritonServer.start(ensure(), str(tmp_path), grpc_port=ports[1])
        served = [pid for pid in descendants(process.pid) if b"--model-repository" in cmdline(pid)]
        assert served
        for pid in served:
            assert b"stlab=hidden" in cmdline(pid)
            assert b"a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        process.terminate()
        assert process.wait(30) == 0
    assert LocalKey(ports[1])() == {}


def ensure() -> Runtime:
    return ensure_runtime(release(DEFAULT_RELEASE))


def descendants(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found] + [pid for one in found for pid in descendants(int(one))]


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_key_that_the_user_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in it; and other machines' commands can be given it."""
    add_model(tmp_path)
    monkeypatch.setenv("STLAB_TRITON_KEY", "a:b=c,d e")
    ports = [free_port() for _ in range(3)]
    with running(serve_command(tmp_path, ports), ports[0]):
        assert as_a_web_page(f"127.0.0.1:{ports[0]}", LOAD, "POST") == 403
        with TritonClient(f"127.0.0.1:{ports[1]}", protocol_keys={"stlab": "a:b=c,d e"}) as client:
            client.repository.load("identity")
        with connect(f"localhost:{ports[1]}") as client:
            assert client.repository.index()
        monkeypatch.delenv("STLAB_TRITON_KEY")
        with (
            pytest.raises(ConflictError, match="requires credentials") as caught,
            connect(f"localhost:{ports[1]}") as client,
        ):
            client.repository.index()
        assert "STLAB_TRITON_KEY" in caught.value.hint


@pytest.mark.parametrize("mode", ["none", "explicit"])
def test_the_launcher(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves as tritonserver does, and is as closed; everybody may list what is served."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("STLAB_TRITON_KEY", "")
    launcher = install_launcher(tmp_path)
    add_model(tmp_path / "repository")
    ports = [free_port() for _ in range(3)]
    command = [
        str(launcher),
        f"--model-repository={tmp_path / 'repository'}",
        *([f"--model-control-mode={mode}", "--load-model=*"] if mode == "explicit" else []),
        *("--http-port", str(ports[0]), "--grpc-port", str(ports[1])),
        f"--metrics-port={ports[2]}",
    ]
    with running(command, ports[0]) as process:
        url = f"127.0.0.1:{ports[0]}"
        for path, method in CLOSED_TO_ALL.items():
            assert as_a_web_page(url, path, method) == 403, path
        for path, method in OPEN.items():
            assert as_a_web_page(url, path, method) == 200, path
        assert as_a_web_page(url, LOAD, "POST") == {"explicit": 403, "none": 503}[mode]
        listed = as_a_web_page(url, "/v2/repository/index", "POST")
        assert listed == {"explicit": 403, "none": 200}[mode]
        assert b"stlab=hidden" in cmdline(process.pid)
        with connect(f"localhost:{ports[1]}") as client:
            assert [entry.name for entry in client.repository.index()] == ["identity"]
            client.shared_memory_status()
