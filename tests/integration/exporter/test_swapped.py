"""Versions that change under load: no call fails, and each answer is one version's whole answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.load import Load, under_load
from tests.support.mlflow_server import Served, mlflow_server
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command, files
from tests.support.serving import serving

pytestmark = pytest.mark.triton
log = logging.getLogger(__name__)
# Lets the process write no file beyond 6 MiB, as on a disk without room.
NO_ROOM = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20));"
    "from exporter.cli import main; main()"
)
# Ends the registry's server once all is published and activated, before the alias is moved.
REGISTRY_DIES = """
import importlib, os, signal, sys
moving = importlib.import_module("exporter.registry.promote")
move = moving._promote
def without_registry(*given):
    os.killpg(int(os.environ["REGISTRY"]), signal.SIGKILL)
    move(*given)
moving._promote = without_registry
from exporter.cli import main
main()
"""


class Place:
    """A registry, a repository, and a server that serves version 1 of a model from it."""

    def __init__(self, served: Served, server: TritonServer, model: str) -> None:
        self.served = served
        self.server = server
        self.model = model
        self.root = served.folder / "repository"
        self.register(1.0)
        self.run("export")

    def register(self, factor: float, weights: int = 0) -> None:
        self.served.register_onnx(self.model, times(factor, weights=weights), example=ROWS)

    def run(self, verb: str, *, code: int = 0, driver: str = "", url: str = "") -> Any:
        """Run a command to its end; returns its result."""
        ran = command(
            self.served.folder,
            self.model,
            "--alias=staging",
            "--repository=repository",
            f"--triton-url={self.server.grpc_url}",
            *([f"--triton-url={url}"] if url else []),
            "--json",
            verb=verb,
            driver=driver,
            MLFLOW_TRACKING_URI=self.served.uri,
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
            REGISTRY=str(self.served.pid),
        )
        assert ran.code == code, ran.stderr
        return ran.result


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, TritonServer]]:
    folder = tmp_path_factory.mktemp("shared")
    with mlflow_server(folder) as served, serving(folder / "repository") as server:
        yield served, server


def only(load: Load, factor: float, begin: float, end: float) -> None:
    """Check that what was sent in a stretch of time, and that is much, met one version only."""
    assert load.between(begin, end) == {factor}


def test_to_and_fro_under_load(shared: tuple[Served, TritonServer], tmp_path: Path) -> None:
    place = Place(*shared, "to-and-fro")
    place.register(2.0)
    ways = [("export", 2.0), ("rollback", 1.0), ("export", 2.0)]
    spans = []
    with under_load(place.server.grpc_url, place.model, tmp_path / "load.npz") as loads:
        for verb, _ in ways:
            time.sleep(0.5)
            begin = time.monotonic()
            place.run(verb)
            spans.append((begin, time.monotonic()))
        time.sleep(0.5)
    (load,) = loads
    assert load.problems == []
    only(load, 1.0, 0, spans[0][0])
    for (begin, end), (_, factor), (after, _) in zip(
        spans, ways, [*spans[1:], (time.monotonic(), 0)], strict=True
    ):
        assert load.between(begin, end) <= {1.0, 2.0}
        only(load, factor, end, after)
    log.info("%d calls, %.0f a second", len(load.sent), load.rate)


def keeps_serving(place: Place, tmp_path: Path, fail: Callable[[], object]) -> None:
    """Check that a command that fails under load leaves all as it was."""
    before = files(place.root / place.model)
    with under_load(place.server.grpc_url, place.model, tmp_path / "load.npz") as loads:
        fail()
        undone = time.monotonic()
        time.sleep(0.5)
    (load,) = loads
    assert load.problems == []
    assert load.between(0, undone) <= {1.0, 2.0}
    only(load, 1.0, undone, time.monotonic())
    assert files(place.root / place.model) == before
    log.info("%d calls, %.0f a second", len(load.sent), load.rate)


def test_a_full_disk_under_load(shared: tuple[Served, TritonServer], tmp_path: Path) -> None:
    place = Place(*shared, "full-disk")
    place.register(2.0, weights=2_000_000)

    def fail() -> None:
        result = place.run("export", code=6, driver=NO_ROOM)
        assert "Free" in result["error"]["hint"]

    keeps_serving(place, tmp_path, fail)
    assert place.served.alias(place.model) == 1


def test_a_server_that_refuses_under_load(
    shared: tuple[Served, TritonServer], tmp_path: Path
) -> None:
    """One of two servers has no backends: all of them, or none."""
    place = Place(*shared, "refused")
    place.register(2.0)
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    without = [f"--backend-directory={tmp_path}"]
    with TritonServer.start(runtime, str(place.root), extra_args=without) as poor:
        poor.wait_live()

        def fail() -> None:
            result = place.run("export", code=3, url=poor.grpc_url)
            assert "cannot load version 2" in result["error"]["message"]

        keeps_serving(place, tmp_path, fail)
    assert place.served.alias(place.model) == 1


def test_a_registry_that_dies_under_load(tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as served, serving(tmp_path / "repository") as server:
        place = Place(served, server, "registry")
        place.register(2.0)

        def fail() -> None:
            result = place.run("export", code=6, driver=REGISTRY_DIES)
            assert result["error"]["kind"] == "unavailable"
            assert "registry" in result["error"]["message"]

        keeps_serving(place, tmp_path, fail)
    assert RegistryFixture(tmp_path).alias(place.model) == 1
