"""Each page with real state behind it, and one whole journey through all of them."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from exporter.commands.status.command import StatusRequest, status
from stlab_dashboard.inference import SERVERS
from tests.support.models import ROWS
from triton_client import TritonClient

from .conftest import PIPELINE, World
from .dashboards import Dashboard, dashboard

pytestmark = [pytest.mark.triton, pytest.mark.timeout(120)]


def row(page: Page, model: str, alias: str) -> Locator:
    section = page.get_by_role("region", name=f"Model {model}")
    return section.get_by_role("row").filter(has=page.get_by_role("rowheader", name=alias))


def cells(page: Page, model: str, alias: str) -> list[str]:
    return [text.strip() for text in row(page, model, alias).get_by_role("cell").all_inner_texts()]


def values(page: Page) -> object:
    """What the page shows of all values."""
    page.get_by_text("All values").click()
    return json.loads(page.locator("details pre").inner_text())


def send(page: Page) -> None:
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status").filter(has_text="Done.")).to_be_visible()


def test_the_aliases_are_those_of_stlab_status(page: Page, shown: Dashboard, world: World) -> None:
    request = StatusRequest(
        "double", repository=str(world.lab.folder / "repository"), tracking_uri=world.lab.uri
    )
    (model,) = status(request).models
    page.goto(shown.url)
    expect(page.get_by_role("heading", name="Registry", level=1)).to_be_visible()
    for state in model.aliases:
        assert state.record is not None
        version, bundle, margin, when, by, served, judged, evidence = cells(
            page, "double", state.alias
        )
        assert version == str(state.version)
        assert bundle == state.record.bundle[:12]
        assert margin == f"{state.margin:.3g}"
        assert when == f"{state.record.at[:16].replace('T', ' ')} UTC"
        assert by == ("pipeline" if state.alias == "prod" else "manual")
        assert (served, judged) == ("yes", "✓ ok")
        assert "Report" in evidence
    assert [state.alias for state in model.aliases] == ["dev", "staging", "prod"]
    expect(row(page, "double", "archived")).to_contain_text("not set")
    pipeline = row(page, "double", "prod").get_by_role("link", name="pipeline")
    expect(pipeline).to_have_attribute("href", PIPELINE)


def test_a_problem_is_red_and_has_a_fix(page: Page, shown: Dashboard, world: World) -> None:
    request = StatusRequest(
        "crooked",
        repository=str(world.lab.folder / "repository"),
        tracking_uri=world.lab.uri,
        triton_urls=(world.server.grpc_url,),
    )
    (model,) = status(request).models
    assert model.drifts
    page.goto(shown.url)
    section = page.get_by_role("region", name="Model crooked")
    expect(section).to_contain_text(f"{len(set(model.drifts))} problems")
    for drift in model.drifts:
        expect(section.get_by_text(drift.message[1:])).to_be_visible()
        expect(section.locator("code", has_text=drift.fix).first).to_be_visible()
    message = section.locator(".drift .bad").first
    expect(message).to_have_css("color", "rgb(168, 21, 42)")
    expect(message).to_contain_text("✗")  # and not by its colour alone
    expect(row(page, "crooked", "staging")).to_contain_text("✗ drift")


def test_refresh_shows_what_has_changed(page: Page, shown: Dashboard, world: World) -> None:
    page.goto(shown.url)
    expect(row(page, "double", "archived")).to_contain_text("not set")
    world.lab.client.set_registered_model_alias("double", "archived", "2")
    try:
        page.get_by_role("button", name="Refresh").click()
        expect(row(page, "double", "archived")).to_contain_text("✗ drift")
    finally:
        world.lab.client.delete_registered_model_alias("double", "archived")
    page.get_by_role("button", name="Refresh").click()
    expect(row(page, "double", "archived")).to_contain_text("not set")


def test_a_journey_from_the_registry_to_the_registrys_numbers(page: Page, shown: Dashboard) -> None:
    page.goto(shown.url)
    page.get_by_role("link", name="Report of double, staging, version 1").click()
    expect(page.get_by_role("heading", name="Report of double, staging")).to_be_visible()
    report = page.frame_locator("iframe[title='Parity report of double, version 1']")
    expect(report.get_by_role("heading", name="double, version 1")).to_be_visible()
    expect(report.get_by_text("Proven.")).to_be_visible()
    page.get_by_role("link", name="Try this version").click()
    expect(page.get_by_label("Model")).to_have_value("double:staging")
    for server in SERVERS.values():
        page.get_by_label(server).check()
        send(page)
        response = page.get_by_role("region", name="Response")
        expect(response).to_contain_text(re.compile(r"\d+\.\d ms round trip"))
        expect(response).to_contain_text(f"{server}, version 1")
        expect(response).to_contain_text("✓ equals the registered model's outputs")
        np.testing.assert_allclose(values(page), 2.0 * ROWS, rtol=1e-6)


def test_another_version_is_not_compared(page: Page, shown: Dashboard) -> None:
    """The service answers for `staging`, whatever is chosen here."""
    page.goto(f"{shown.url}/try?model=double&alias=dev")
    expect(page.get_by_label("Model")).to_have_value("double:dev")
    send(page)
    response = page.get_by_role("region", name="Response")
    expect(response).to_contain_text("serves version 1, and 'dev' points to version 2")
    page.get_by_label("Triton (").check()
    send(page)
    expect(response).to_contain_text("✓ equals the registered model's outputs")
    np.testing.assert_allclose(values(page), 3.0 * ROWS, rtol=1e-6)


def test_an_uploaded_file(page: Page, shown: Dashboard, tmp_path: Path) -> None:
    mine = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.savez(tmp_path / "mine.npz", x=mine)
    (tmp_path / "mine.json").write_text(json.dumps({"x": mine.tolist()}))
    page.goto(f"{shown.url}/try?model=double&alias=staging")
    page.get_by_label("a file").check()
    for file in (tmp_path / "mine.npz", tmp_path / "mine.json"):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a file").click()
        chooser.value.set_files(file)
        expect(page.get_by_text(f"{file.name},")).to_be_visible()
        for server in SERVERS.values():
            page.get_by_label(server).check()
            send(page)
            expect(page.get_by_role("region", name="Response")).to_contain_text(server)
            np.testing.assert_array_equal(values(page), 2.0 * mine)


def test_inputs_that_do_not_fit_are_named(page: Page, shown: Dashboard, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    file.write_text('{"y": [[1, 2]]}')
    page.goto(f"{shown.url}/try?model=double&alias=staging")
    page.get_by_label("a file").check()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("No file is chosen")
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text("wrong.json,")).to_be_visible()
    for server, name in (("the service", "/inputs/x: Field required"), ("Triton", "'y'")):
        page.get_by_label(f"{server} (").check()
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("alert")).to_contain_text(name)


def test_the_demos_page_is_a_plugin(page: Page, shown: Dashboard) -> None:
    page.goto(shown.url)
    page.get_by_role("link", name="Incomes").click()
    expect(page.get_by_role("heading", name="Incomes", level=1)).to_be_visible()
    page.get_by_role("button", name="Forecast").click()
    drawn = page.get_by_role("img", name=re.compile("income per head"))
    expect(drawn).to_have_count(6)
    expect(page.get_by_role("img", name=re.compile("^California"))).to_be_visible()
    # The model repeats the last value: the demo's own table has its mean error over all states.
    expect(page.get_by_role("region", name="Forecasts")).to_contain_text("48 states is 7.1 %")
    page.get_by_text("Choose states").click()
    page.get_by_role("checkbox", name="Ohio").check()
    expect(drawn).to_have_count(7)
    page.get_by_role("checkbox", name="California").uncheck()
    expect(page.get_by_role("img", name=re.compile("^California"))).to_have_count(0)


def test_a_page_plugin_that_fails_is_a_notice_on_its_page(page: Page, tmp_path: Path) -> None:
    plugin = "class Page:\n path, title = '/broken', 'Broken'\n async def draw(self, _): 1 / 0\n"
    (tmp_path / "toyshop_page.py").write_text(plugin)
    info = tmp_path / "toyshop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toyshop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stlab_dashboard.pages]\ntoy = toyshop_page:Page\n")
    with dashboard(tmp_path, errors=1, plugins=str(tmp_path)) as running:
        page.goto(f"{running.url}/broken")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The page plug-in 'Broken' failed")
        expect(alert).to_contain_text("ZeroDivisionError")
        page.get_by_role("link", name="Registry").click()
        expect(page.get_by_role("heading", name="Registry", level=1)).to_be_visible()


@contextmanager
def load(url: str, model: str) -> Iterator[None]:
    """Run a model all the time, four requests at once."""
    over = threading.Event()

    def run() -> None:
        with TritonClient(url) as client:
            while not over.is_set():
                client.model(model, 1).infer({"x": ROWS[:2]})
                over.wait(0.01)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def numbers(page: Page, model: str) -> list[str]:
    header = page.get_by_role("rowheader", name=model)
    found = page.get_by_role("row").filter(has=header).get_by_role("cell")
    return [text.removesuffix(" ms") for text in found.all_inner_texts()]


def numbers_once(page: Page, model: str, so: Callable[[float], bool]) -> list[str]:
    """The same, once the request rate is so."""
    end = time.monotonic() + 30
    # A dash is what is not known yet.
    while not so(float((found := numbers(page, model))[0].replace("—", "nan"))):
        assert time.monotonic() < end, found
        page.wait_for_timeout(200)
    return found


def test_the_server_under_load_and_at_rest(page: Page, shown: Dashboard, world: World) -> None:
    page.goto(f"{shown.url}/server")
    expect(page.get_by_role("status")).to_contain_text(f"at {world.server.grpc_url}")
    expect(page.get_by_role("status")).to_contain_text("its metrics page")
    with load(world.server.grpc_url, "double"):
        _, failed, latency, percentiles, queue, compute, batch, _, so_far = numbers_once(
            page, "double 1", lambda requests: requests > 20
        )
    assert float(failed) == 0
    assert 0 < float(queue) + float(compute) <= 1.01 * float(latency) < 1000
    found = re.findall(r"p([0-9.]+)\s([0-9.]+)\sms", percentiles)
    assert [name for name, _ in found][:4] == ["50", "90", "95", "99"]
    assert [float(value) for _, value in found] == sorted(float(value) for _, value in found)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1180
    assert float(batch) >= 2
    assert int(so_far.replace(",", "")) > 20
    expect(page.get_by_role("img", name=re.compile("^Requests per second"))).to_be_visible()
    _, _, latency, *_ = numbers_once(page, "double 1", lambda requests: requests == 0)
    assert latency == "—"
