"""The dashboard without registry, service or server: it says so, and shows no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.ports import free_port
from tests.support.registering import RegistryFixture

from .conftest import World
from .dashboards import Dashboard, dashboard

pytestmark = [pytest.mark.triton, pytest.mark.timeout(120)]
SECRET = "geheim"


@pytest.fixture(scope="module")
def triton_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, triton_port: int) -> Iterator[Dashboard]:
    """A dashboard with nothing there: no registry, no service, no server."""
    with dashboard(
        tmp_path_factory.mktemp("alone"),
        MLFLOW_TRACKING_URI=f"http://somebody:{SECRET}@127.0.0.1:{free_port()}",
        STLAB_TRITON_URL=f"127.0.0.1:{triton_port}",
        STLAB_TRITON_METRICS_URL=f"http://127.0.0.1:{free_port()}/metrics",
        STLAB_API_URL=f"http://127.0.0.1:{free_port()}",
        STLAB_DASHBOARD_API_KEY=SECRET,
    ) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/try", "/server", "/report/double/staging"])
def test_every_page_says_so_and_shows_no_secret(page: Page, alone: Dashboard, path: str) -> None:
    page.goto(alone.url + path)
    said = page.get_by_role("status" if path == "/server" else "alert").locator("visible=true")
    expected = "The server does not answer" if path == "/server" else "No MLflow registry answers"
    expect(said.filter(has_text=expected).first).to_be_visible()
    assert SECRET not in page.content()
    assert SECRET not in alone.log.read_text()


def test_a_server_that_comes_and_goes(
    page: Page, alone: Dashboard, triton_port: int, tmp_path: Path
) -> None:
    page.goto(f"{alone.url}/server")
    said = page.get_by_role("status")
    expect(said).to_contain_text("The server does not answer")
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    with TritonServer.start(runtime, str(tmp_path), grpc_port=triton_port) as server:
        server.wait_live()
        expect(said).to_contain_text("✓ The server answers")
        # Its metrics page is elsewhere than the settings say.
        expect(said).to_contain_text("statistics by gRPC")
        expect(page.get_by_text("No model is loaded.")).to_be_visible()
    expect(said).to_contain_text("The server does not answer")


def test_the_service_alone_is_away(page: Page, lab: RegistryFixture, world: World) -> None:
    with dashboard(
        lab.folder,
        MLFLOW_TRACKING_URI=lab.uri,
        STLAB_MODEL_REPOSITORY=str(lab.folder / "nothing-here"),
        STLAB_TRITON_URL=world.server.grpc_url,
        STLAB_API_URL=f"http://127.0.0.1:{free_port()}",
    ) as running:
        # The repository has no bundle; samples and report come from the registry.
        page.goto(f"{running.url}/try?model=double&alias=staging")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.get_by_label("Triton (").check()
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("✓ equals the registered model's outputs")).to_be_visible()
        page.goto(f"{running.url}/report/double/staging.html")
        expect(page.get_by_text("Proven.")).to_be_visible()
