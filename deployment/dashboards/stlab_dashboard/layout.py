"""What every page has: a way past the navigation, the navigation, a heading, its origin."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from nicegui import context, ui

from exporter.text.redaction import redact
from stlab_dashboard.elements import element, link, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stlab_dashboard.settings import Settings

__all__ = ["PAGES", "frame", "notice"]

PAGES = {"/": "Registry", "/try": "Try it", "/server": "Server"}


@contextmanager
def frame(settings: Settings, title: str, path: str) -> Iterator[None]:
    """Open a page's content.

    Args:
        settings: Whence the page's content comes.
        title: The page's heading.
        path: The page of the navigation that it belongs to.
    """
    ui.page_title(f"{title} · stlab")
    # Beside the element that is the page's <main>, not within it.
    with context.client.layout:
        top = element("header", "top")
        bottom = element("footer", "bottom")
    top.move(target_index=0)
    with top, element("div", "inner"):
        text("span", "stlab", "brand")
        with element("nav", aria_label="Pages"), element("ul"):
            for target, name in PAGES.items():
                with element("li"):
                    current = {"aria_current": "page"} if target == path else {}
                    link(name, target, **current)
    with element("div", "content") as content:
        text("h1", title)
        yield
    ui.skip_link("Skip to the content", target=content)
    with bottom, element("div", "inner"):
        text(
            "p",
            f"Registry {redact(settings.tracking_uri)} · repository {redact(settings.repository)}. "
            "Nothing can be changed here: promotion belongs to CI.",
        )


def notice(error: Mapping[str, str], heading: str = "") -> None:
    """Say what went wrong and what to do about it."""
    with element("div", "notice bad", role="alert"):
        text("p", f"✗ {heading or 'Something could not be looked at'}", "strong")
        text("p", f"{error['message'][:1].upper()}{error['message'][1:]}.".replace("..", "."))
        if error["hint"]:
            text("p", error["hint"])
