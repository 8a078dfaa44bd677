"""Exports that a live server is told of: served at once, or undone whole."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from exporter.commands.export.result import ExportResult
from exporter.errors import ValidationFailedError
from exporter.repository import LocalRepository
from exporter.triton.addresses import expand_addresses
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command
from tests.support.serving import factor, ready
from triton_client import TritonClient

pytestmark = pytest.mark.triton

Start = Callable[..., TritonServer]


@pytest.fixture(scope="module")
def start(lab: RegistryFixture) -> Iterator[Start]:
    """Starts servers that end with the tests."""
    (lab.folder / "repository").mkdir()
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    running = []

    def started(repository: Path, **options: object) -> TritonServer:
        server = TritonServer.start(runtime, str(repository), **options)  # type: ignore[arg-type]
        running.append(server)
        server.wait_live()
        return server

    yield started
    for server in running:
        server.stop(timeout=0)


@pytest.fixture(scope="module")
def server(lab: RegistryFixture, start: Start) -> TritonServer:
    """A live server on the repository, in explicit mode."""
    return start(lab.folder / "repository")


def register(lab: RegistryFixture, name: str, *factors: float) -> None:
    for number in factors:
        lab.register_onnx(name, times(number), example=ROWS)


def export(
    lab: RegistryFixture, name: str, *servers: TritonServer, **options: object
) -> ExportResult:
    urls = tuple(server.grpc_url for server in servers)
    return lab.export(name, triton_urls=urls, **options)


def undone(result: ExportResult, code: int, words: str) -> None:
    assert result.error is not None, result
    assert (result.exit_code, words in result.error["message"]) == (code, True), result.error


def test_versions_are_switched(lab: RegistryFixture, server: TritonServer) -> None:
    register(lab, "switched", 1.0, 2.0)
    first = export(lab, "switched", server, version=1)
    assert first.status == "promoted", first.error
    assert factor(server, "switched") == 1.0
    second = export(lab, "switched", server, version=2)
    assert second.status == "promoted", second.error
    assert factor(server, "switched") == 2.0
    assert ready(server, "switched") == [2]
    assert export(lab, "switched", server, version=2).status == "unchanged"


def test_the_address_comes_from_the_environment(lab: RegistryFixture, server: TritonServer) -> None:
    register(lab, "by-environment", 4.0)
    asked = ["by-environment", "--alias", "staging", "--repository", "repository", "--json"]
    settings = {"MLFLOW_TRACKING_URI": lab.uri, "STLAB_TRITON_URL": server.grpc_url}
    planned = command(lab.folder, *asked, "--dry-run", **settings)
    assert f"activate on {server.grpc_url}" in planned.result["plan"]
    ran = command(lab.folder, *asked, **settings)
    assert ran.code == 0, ran.stderr
    assert factor(server, "by-environment") == 4.0


def test_a_server_that_lost_the_model_gets_it_again(
    lab: RegistryFixture, server: TritonServer
) -> None:
    register(lab, "unloaded", 3.0)
    assert export(lab, "unloaded", server).status == "promoted"
    with server.client() as client:
        client.repository.unload("unloaded")
    assert export(lab, "unloaded", server).status == "promoted"
    assert factor(server, "unloaded") == 3.0


def test_two_servers(lab: RegistryFixture, server: TritonServer, start: Start) -> None:
    register(lab, "twice", 3.0)
    other = start(lab.folder / "repository")
    assert export(lab, "twice", server, other).status == "promoted"
    assert (factor(server, "twice"), factor(other, "twice")) == (3.0, 3.0)


@pytest.fixture
def promoted(lab: RegistryFixture, server: TritonServer, request: pytest.FixtureRequest) -> str:
    """A model whose first version is served live, and whose second is to come."""
    words = "".join(c if c.isalnum() else "-" for c in request.node.name)
    name = words.removeprefix("test-").strip("-")
    register(lab, name, 1.0, 2.0)
    result = export(lab, name, server, version=1)
    assert result.status == "promoted", result.error
    return name


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_a_server_that_takes_no_commands_is_found_before_anything_is_done(
    lab: RegistryFixture, start: Start, promoted: str, mode: str
) -> None:
    before = lab.repository_bytes()
    fixed = start(lab.folder / "repository", control_mode=mode)
    result = export(lab, promoted, fixed, version=2)
    undone(result, 5, "it runs with --model-control-mode=none or poll")
    assert set(result.seconds) == {"resolve", "total"}
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)
    assert factor(fixed, promoted) == 1.0


@pytest.mark.parametrize("knows", [False, True])
def test_another_repository(
    lab: RegistryFixture, start: Start, promoted: str, tmp_path: Path, knows: bool
) -> None:
    before = lab.repository_bytes()
    if knows:  # the model, but not this version
        assert lab.export(promoted, "dev", version=1, repository=str(tmp_path)).status == "promoted"
    stranger = start(tmp_path)
    undone(export(lab, promoted, stranger, version=2), 5, "this repository" if not knows else "not")
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)


def test_a_dead_server_is_found_before_anything_is_done(
    lab: RegistryFixture, promoted: str
) -> None:
    before = lab.repository_bytes()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (9, silent.getsockname()[1]):
            begin = time.perf_counter()
            result = lab.export(promoted, version=2, triton_urls=(f"127.0.0.1:{port}",))
            undone(result, 6, "no Triton server answers")
            assert time.perf_counter() - begin < 20
            assert set(result.seconds) == {"resolve", "total"}
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)


def test_a_server_that_cannot_load_it(
    lab: RegistryFixture, start: Start, promoted: str, tmp_path: Path
) -> None:
    before = lab.repository_bytes()
    # Serves nothing that needs a backend, as a server of another build may.
    poor = start(lab.folder / "repository", extra_args=[f"--backend-directory={tmp_path}"])
    undone(export(lab, promoted, poor, version=2), 3, "cannot load version 2")
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)


def test_one_of_two_servers_refuses(
    lab: RegistryFixture, server: TritonServer, start: Start, promoted: str, tmp_path: Path
) -> None:
    before = lab.repository_bytes()
    poor = start(lab.folder / "repository", extra_args=[f"--backend-directory={tmp_path}"])
    undone(export(lab, promoted, server, poor, version=2), 3, "cannot load version 2")
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)
    assert factor(server, promoted) == 1.0


def test_every_server_behind_a_name_is_switched(
    lab: RegistryFixture, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As replicas behind a headless Service: one port, an address each."""
    monkeypatch.setenv("STLAB_TRITON_KEY", "of all replicas")
    addresses = ("127.0.0.2", "127.0.0.3")
    port = int(start(lab.folder / "repository", extra_args=["--grpc-address=127.0.0.2"])
               .grpc_url.rpartition(":")[2])  # fmt: skip
    start(lab.folder / "repository", grpc_port=port, extra_args=["--grpc-address=127.0.0.3"])
    with monkeypatch.context() as patched:
        known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]
        patched.setattr(socket, "getaddrinfo", lambda *_, **__: known)
        servers = expand_addresses([f"dns:///pods:{port}"])
    assert servers == tuple(f"{one}:{port}#pods" for one in addresses)
    register(lab, "behind", 1.0, 2.0)
    for version in (1, 2):
        result = lab.export("behind", version=version, triton_urls=servers)
        assert result.status == "promoted", result.error
        for one in addresses:
            with TritonClient(f"{one}:{port}") as client:
                answer = client.model("behind").infer({"x": ROWS})["y"]
            np.testing.assert_allclose(answer, version * ROWS, rtol=1e-6)


def answers_otherwise(*_: object) -> None:
    raise ValidationFailedError("it answers otherwise", hint="Look at it.")


def test_an_answer_out_of_budget(
    lab: RegistryFixture, server: TritonServer, promoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lab.repository_bytes()
    monkeypatch.setattr("exporter.rollout.rollout.verify", answers_otherwise)
    undone(export(lab, promoted, server, version=2), 3, "answers otherwise")
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)
    assert factor(server, promoted) == 1.0
    assert ready(server, promoted) == [1]


def test_a_new_model_out_of_budget_is_served_no_longer(
    lab: RegistryFixture, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(lab, "never", 1.0)
    before = lab.repository_bytes()
    monkeypatch.setattr("exporter.rollout.rollout.verify", answers_otherwise)
    undone(export(lab, "never", server), 3, "answers otherwise")
    assert (lab.alias("never"), lab.repository_bytes()) == (None, before)
    assert ready(server, "never") == []


def test_a_server_that_dies_while_it_is_told(
    lab: RegistryFixture, start: Start, promoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lab.repository_bytes()
    mortal = start(lab.folder / "repository")
    activate = LocalRepository.activate

    def then_dies(repository: LocalRepository, *arguments: object) -> object:
        result = activate(repository, *arguments)  # type: ignore[arg-type]
        mortal.stop(timeout=0)
        return result

    monkeypatch.setattr(LocalRepository, "activate", then_dies)
    undone(export(lab, promoted, mortal, version=2), 6, "no Triton server answers")
    assert (lab.alias(promoted), lab.repository_bytes()) == (1, before)
