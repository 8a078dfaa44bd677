"""Foreign sites, a proxy with a path prefix and no internet, for service and dashboard."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.fake_service import fake_service
from tests.support.proxies import http_nginx
from tests.support.services import Service

from .dashboards import Dashboard, dashboard

pytestmark = pytest.mark.timeout(240)
SITE = "https://evil.example"
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard of nothing."""
    folder = tmp_path_factory.mktemp("bare")
    with dashboard(folder, STLAB_MODEL_REPOSITORY=str(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def api() -> Iterator[Service]:
    with fake_service() as running:
        yield running


@pytest.fixture(scope="module")
def named_api() -> Iterator[Service]:
    with fake_service(STLAB_API_ROOT_PATH="/named", STLAB_API_TIMEOUT_SECONDS=60) as running:
        yield running


def status(url: str, method: str = "GET", **headers: str) -> int:
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def socket_status(url: str, **headers: str) -> int:
    async def opened() -> int:
        address = url.replace("http", "ws", 1)
        try:
            async with connect(address, additional_headers=headers, open_timeout=60):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    return asyncio.run(opened())


def test_pages_of_other_sites_get_nothing_from_the_dashboard(bare: Dashboard) -> None:
    for path in ("/", "/try", f"{SOCKET}polling", "/static/favicon.svg"):
        url = f"{bare.url}{path}"
        assert status(url) == 200
        assert status(url, Origin=bare.url) == 200
        for method in ("GET", "POST"):
            assert status(url, method, Host="evil.example") == 403
            assert status(url, method, Host="evil.example", Origin=SITE) == 403
            assert status(url, method, Origin=SITE) == 403
            assert status(url, method, Origin="null") == 403
    live = f"{bare.url}{SOCKET}websocket"
    assert socket_status(live) == 101
    assert socket_status(live, Origin=bare.url) == 101
    assert socket_status(live, Origin=SITE) == 403
    assert socket_status(live, Host="evil.example") == 403
    assert socket_status(live, Host="evil.example", Origin="http://evil.example") == 403


def test_pages_of_other_sites_get_nothing_from_the_service(api: Service) -> None:
    for path in ("/docs", "/openapi.json", "/v1/models/toy"):
        assert status(f"{api.url}{path}") == 200
        assert status(f"{api.url}{path}", Host="evil.example") == 403
        assert status(f"{api.url}{path}", Origin=SITE) == 403
    assert status(f"{api.url}/v1/models/toy/predict", "POST", Origin=SITE) == 403
    assert status(f"{api.url}/health/live", Host="10.1.2.3") == 200


@pytest.mark.parametrize("prefix", ["", "/stripped", "/kept"])
def test_the_dashboard_works_below_a_prefix(
    page: Page, bare: Dashboard, prefix: str, tmp_path: Path
) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("response", lambda answer: failed.append(answer.url) if answer.status > 399 else None)
    with http_nginx(int(bare.url.rpartition(":")[2]), tmp_path) as proxy:
        base = f"{proxy}{prefix}" if prefix else bare.url
        page.goto(f"{base}/")
        expect(page.get_by_role("heading", name="Registry", level=1)).to_be_visible()
        color = "getComputedStyle(document.querySelector('header.top')).borderBottomWidth"
        styled = page.evaluate(color)
        page.get_by_role("link", name="Try it").click()
        expect(page.get_by_role("heading", name="Try it", level=1)).to_be_visible()
        assert page.url == f"{base}/try"
        assert page.evaluate(color) == styled
        page.get_by_role("link", name="Server").click()
        expect(page.get_by_role("heading", name="Server", level=1)).to_be_visible()
        page.wait_for_function("window.socket && window.socket.connected")
        assert failed == []
        assert all(url.startswith((f"{base}/", "data:")) for url in requested), requested


@pytest.mark.parametrize("prefix", ["", "/stripped", "/kept", "/named"])
def test_the_documentation_works_below_a_prefix_and_without_internet(
    page: Page, api: Service, named_api: Service, prefix: str, tmp_path: Path
) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    with http_nginx(named_api.port if prefix == "/named" else api.port, tmp_path) as proxy:
        base = f"{proxy}{prefix}" if prefix else api.url
        page.goto(f"{base}/docs")
        expect(page.get_by_text("/v1/models/toy/predict").first).to_be_visible()
        assert complaints == []
        outside = [u for u in requested if not u.startswith((f"{base}/", "data:", "blob:"))]
        assert outside == []
        with urllib.request.urlopen(f"{base}/openapi.json", timeout=60) as answer:
            document = json.load(answer)
        assert document.get("servers", [{"url": ""}])[0]["url"] == prefix
        # "Try it out" sends its request there.
        page.get_by_role("button", name="get /v1/models/toy", exact=False).first.click()
        page.get_by_role("button", name="Try it out").first.click()
        page.get_by_role("button", name="Execute").first.click()
        expect(page.get_by_text("max_batch_size").first).to_be_visible()
        assert f"{base}/v1/models/toy" in requested


def test_a_report_is_linked_below_the_prefix(bare: Dashboard) -> None:
    request = urllib.request.Request(f"{bare.url}/", headers={"X-Forwarded-Prefix": "/ml"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        page = answer.read().decode()
    assert "/ml/try" in page
    assert "/ml/_nicegui/" in page
    assert "/ml/ml" not in page
