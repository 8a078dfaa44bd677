"""The frame of every page: skip link, navigation, heading, footer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from nicegui import context, ui

from stlab_dashboard.elements import element, link, text

__all__ = ["PAGES", "Layout", "notice"]

PAGES = {"/": "Registry", "/try": "Try it", "/server": "Server"}
"""The dashboard's own pages by path."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What all pages share: the names in the navigation by path, and a sentence at the end."""

    pages: Mapping[str, str]
    footer: str

    @contextmanager
    def page(self, title: str, path: str) -> Iterator[None]:
        """Open the content of a page; the path is its entry of the navigation."""
        ui.page_title(f"{title} · stlab")
        # Next to the element that is the page's <main>, not within it.
        with context.client.layout:
            top = element("header", "top")
            bottom = element("footer", "bottom")
        top.move(target_index=0)
        with top, element("div", "inner"):
            text("span", "stlab", "brand")
            with element("nav", aria_label="Pages"), element("ul"):
                for target, name in self.pages.items():
                    with element("li"):
                        current = {"aria_current": "page"} if target == path else {}
                        link(name, target, **current)
        with element("div", "content") as content:
            text("h1", title)
            yield
        ui.skip_link("Skip to the content", target=content)
        with bottom, element("div", "inner"):
            text("p", self.footer)


def notice(error: Mapping[str, str], heading: str) -> None:
    """Show an error with what to do about it."""
    with element("div", "notice bad", role="alert"):
        text("p", f"✗ {heading}", "strong")
        text("p", f"{error['message'][:1].upper()}{error['message'][1:]}.".replace("..", "."))
        if error["hint"]:
            text("p", error["hint"])
