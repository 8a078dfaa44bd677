"""A registry, a repository, a Triton server, the service, the dashboard and a browser: all real."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Page, expect, sync_playwright

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.services import Service, service

from .dashboards import Dashboard, dashboard

ARGUMENTS = [
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PIPELINE = "https://ci.example/stlab/118"


@dataclass(frozen=True)
class World:
    """Everything that the dashboard shows."""

    lab: RegistryFixture
    server: TritonServer
    service: Service


def naive_income() -> onnx.ModelProto:
    """A model with the demo's interface: the last value again, three years ahead."""
    constants = [
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in {"start": 9, "end": 10, "axis": 2}.items()
    ]
    nodes = [
        helper.make_node("Slice", ["history", "start", "end", "axis"], ["last"]),
        helper.make_node("Concat", ["last", "last", "last"], ["forecast"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "naive",
        [helper.make_tensor_value_info("history", TensorProto.FLOAT, ["n", 48, 10])],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["n", 48, 3])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryFixture]:
    with RegistryFixture.open(tmp_path_factory.mktemp("dashboard")) as lab:
        (lab.folder / "repository").mkdir()
        yield lab


@pytest.fixture(scope="package")
def world(lab: RegistryFixture) -> Iterator[World]:
    """`double` with three aliases; `income`, as the demo's; `crooked`, whose alias has drifted."""
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    environment = pytest.MonkeyPatch()
    environment.delenv("CI", raising=False)
    with TritonServer.start(runtime, str(lab.folder / "repository")) as server:
        server.wait_live()

        def export(name: str, alias: str) -> None:
            urls = (server.grpc_url,)
            result = lab.export(name, alias, triton_urls=urls, prove_on=server.grpc_url)
            assert result.status == "promoted", result.error

        years = np.random.default_rng(3).uniform(1e4, 4e4, (2, 48, 10)).astype(np.float32)
        lab.register_onnx("income", naive_income(), example=years)
        export("income", "staging")
        lab.register_onnx("double", times(2.0), example=ROWS)
        export("double", "staging")
        with pytest.MonkeyPatch.context() as pipeline:
            pipeline.setenv("CI", "true")
            pipeline.setenv("CI_PIPELINE_URL", PIPELINE)
            export("double", "prod")
        lab.register_onnx("double", times(3.0), example=ROWS)
        export("double", "dev")
        lab.register_onnx("crooked", times(5.0), example=ROWS)
        export("crooked", "staging")
        lab.register_onnx("crooked", times(6.0), example=ROWS)
        lab.client.set_registered_model_alias("crooked", "staging", "2")
        with service(
            lab, "double,income", STLAB_API_BACKEND="triton", STLAB_TRITON_URL=server.grpc_url
        ) as running:
            yield World(lab, server, running)
    environment.undo()


@pytest.fixture(scope="package")
def shown(world: World) -> Iterator[Dashboard]:
    """The dashboard of that world."""
    with dashboard(
        world.lab.folder,
        MLFLOW_TRACKING_URI=world.lab.uri,
        STLAB_MODEL_REPOSITORY=str(world.lab.folder / "repository"),
        STLAB_TRITON_URL=world.server.grpc_url,
        STLAB_TRITON_METRICS_URL=f"http://{world.server.metrics_url}/metrics",
        STLAB_API_URL=world.service.url,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium.

    Playwright keeps an event loop running, and no other test could start one meanwhile.
    """
    named = os.environ.get("STLAB_CHROMIUM", "")
    path = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = path or (own if Path(own).is_file() else None)
        if found is None:
            pytest.fail(
                "no Chromium was found: apt-get install chromium, or playwright install chromium, "
                "or name one in STLAB_CHROMIUM"
            )
        with playwright.chromium.launch(executable_path=found, args=ARGUMENTS) as browser:
            yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, on which no script may fail."""
    failures: list[str] = []
    context = browser.new_context(viewport={"width": 1180, "height": 860})
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    opened.on("pageerror", lambda error: failures.append(str(error)))
    yield opened
    context.close()
    assert failures == []
