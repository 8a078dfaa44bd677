"""Usable by keyboard, by screen readers and on a narrow screen; nothing comes from elsewhere."""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from .dashboards import Dashboard

pytestmark = [pytest.mark.triton, pytest.mark.timeout(120)]
PATHS = ("/", "/report/double/staging", "/try?model=double&alias=staging", "/server", "/income")

FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const field = e.matches("input, select") && e.id;
  return [e.getAttribute("aria-label") || field || e.innerText || e.tagName,
          style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""
UNNAMED = """() => [...document.querySelectorAll(
  "main input:not([type=file]), main select, main button, main a, main iframe")].filter((e) => !(
    e.getAttribute("aria-label") || e.title || e.innerText?.trim() || e.labels?.length)
  ).map((e) => e.outerHTML)"""
LEVELS = """() => [...document.querySelectorAll("h1, h2, h3, h4")].filter(
  (e) => e.offsetParent).map((e) => Number(e.tagName[1]))"""


def settled(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_load_state("networkidle")


def tab(page: Page) -> str:
    """Go on by keyboard, and return where that leads: it is always to be seen."""
    page.keyboard.press("Tab")
    name, visible = page.evaluate(FOCUSED)
    assert visible, f"the focus on {name!r} cannot be seen"
    return " ".join(str(name).split())


def test_the_keyboard_alone_leads_from_the_registry_to_an_answer(
    page: Page, shown: Dashboard
) -> None:
    settled(page, shown.url)
    expect(page.get_by_role("link", name="Try double, staging, version 1")).to_be_visible()
    order = [tab(page) for _ in range(6)]
    pages = ["Registry", "Try it", "Server", "Incomes"]
    assert order == ["Skip to the content", *pages, "Refresh"]
    for _ in range(30):
        if tab(page) == "Try double, staging, version 1":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_label("Model")).to_have_value("double:staging")
    expect(page.get_by_label("Sample", exact=True)).to_be_visible()
    order = [tab(page) for _ in range(9)]
    assert order[5:] == ["model", "via-service", "inputs-sample", "sample"]
    assert tab(page) == "Send"
    page.keyboard.press("Enter")
    expect(page.get_by_text("✓ equals the registered model's outputs")).to_be_visible()
    assert tab(page).endswith("All values")
    page.keyboard.press("Enter")
    expect(page.locator("details pre")).to_be_visible()


def test_the_arrows_choose_and_space_opens(page: Page, shown: Dashboard) -> None:
    settled(page, f"{shown.url}/try?model=double&alias=staging")
    page.get_by_label("the service (").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Triton (")).to_be_checked()
    page.get_by_label("a sample of the bundle").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("a file")).to_be_checked()
    assert tab(page) == "Choose a file"
    with page.expect_file_chooser():
        page.keyboard.press("Space")


def test_the_skip_link_leads_past_the_navigation(page: Page, shown: Dashboard) -> None:
    settled(page, shown.url)
    assert tab(page) == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    name, _ = page.evaluate(FOCUSED)
    assert name == "Refresh"


@pytest.mark.parametrize("path", PATHS)
def test_headings_landmarks_and_names(page: Page, shown: Dashboard, path: str) -> None:
    settled(page, shown.url + path)
    assert page.locator("html").get_attribute("lang") == "en-US"
    for role in ("banner", "navigation", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    levels = page.evaluate(LEVELS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate(UNNAMED) == []
    for table in page.get_by_role("table").all():
        assert table.get_by_role("columnheader").count() > 1
        assert table.locator("caption").count() == 1
    if not path.startswith("/report"):
        expect(page.locator("nav a[aria-current=page]")).to_have_count(1)


@pytest.mark.parametrize("path", PATHS)
def test_a_narrow_screen_scrolls_one_way(page: Page, shown: Dashboard, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    settled(page, shown.url + path)
    for sent, name, shown_then in (
        ("/try", "Send", "details"), ("/income", "Forecast", ".figures svg")
    ):  # fmt: skip
        if path.startswith(sent):
            page.get_by_role("button", name=name).click()
            expect(page.locator(shown_then).first).to_be_visible()
            for summary in page.locator("summary").all():
                summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((e) => e.offsetParent
        && e.getBoundingClientRect().right > 361 && !e.closest(".hidden, thead"))
        .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert wide == []


def test_nothing_comes_from_other_hosts(page: Page, shown: Dashboard) -> None:
    requested: set[str] = set()
    page.on("request", lambda request: requested.add(request.url))
    page.on("websocket", lambda socket: requested.add(socket.url))
    for path in PATHS:
        settled(page, shown.url + path)
    elsewhere = {url for url in requested if urlsplit(url).netloc != urlsplit(shown.url).netloc}
    assert {url for url in elsewhere if not url.startswith(("data:", "blob:"))} == set()
    assert len(requested) > 10


def test_other_sites_may_not_show_it_and_nothing_can_be_posted(
    page: Page, shown: Dashboard
) -> None:
    answer = page.goto(shown.url)
    assert answer is not None
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    for method in ("POST", "PUT", "DELETE"):
        refused = page.request.fetch(f"{shown.url}/", method=method)
        assert refused.status in {404, 405}
