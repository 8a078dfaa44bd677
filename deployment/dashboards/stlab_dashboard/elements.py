"""Plain semantic HTML elements: headings, tables, fields, states in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import context, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

__all__ = ["button", "cell", "choice", "command", "element", "link", "radios", "row", "state",
           "table", "text"]  # fmt: skip

_MARKS = {"good": "✓", "bad": "✗", "warn": "!", "none": "—"}
_TARGET_VALUE = "(event) => emit(event.target.value)"


def element(tag: str, classes: str = "", **attributes: Any) -> Element:
    """Return an element; ``aria_label`` is the attribute ``aria-label``."""
    made = ui.element(tag).classes(classes)
    made.props.update(_named(attributes))
    return made


def text(tag: str, content: str, classes: str = "", **attributes: Any) -> TextElement:
    """Return an element that holds text, which is never read as HTML."""
    made = TextElement(tag=tag, text=content).classes(classes)
    made.props.update(_named(attributes))
    return made


def link(content: str, href: str, classes: str = "", **attributes: Any) -> TextElement:
    """Return a link; a path that starts with a slash is a page of the dashboard."""
    request = context.client.request if href.startswith("/") else None
    prefix = request.scope.get("root_path", "") if request is not None else ""
    return text("a", content, classes, href=f"{prefix}{href}", **attributes)


def button(content: str, act: Callable[[], Any], classes: str = "", **attributes: Any) -> Element:
    """Return a button."""
    return text("button", content, f"button {classes}", type="button", **attributes).on(
        "click", act, js_handler="() => emit()"
    )


def state(kind: str, words: str) -> TextElement:
    """Return a state: a mark, words and a colour; ``good``, ``bad``, ``warn`` or ``none``."""
    return text("span", f"{_MARKS[kind]} {words}", f"state {kind}")


def command(line: str) -> None:
    """Draw a command with a button that copies it."""
    with element("div", "command"):
        text("code", line)
        copy = (
            "(event) => { const button = event.currentTarget; navigator.clipboard"
            f"?.writeText({json.dumps(line)}).then(() => {{ button.textContent = 'Copied'; }}); }}"
        )
        text(
            "button", "Copy", "button small", type="button", aria_label=f"Copy the command {line}"
        ).on("click", js_handler=copy)


@contextmanager
def table(caption: str, headers: Sequence[str], *, hidden: bool = False) -> Iterator[None]:
    """Open a table's body; on a narrow screen every row becomes a block.

    Roles are explicit, since a table that is displayed as blocks loses its own. Only screen
    readers get a hidden caption.
    """
    with element("table", role="table"):
        text("caption", caption, "hidden" if hidden else "")
        with element("thead", role="rowgroup"), element("tr", role="row"):
            for header in headers:
                text("th", header, role="columnheader", scope="col")
        with element("tbody", role="rowgroup"):
            yield


def row(classes: str = "") -> Element:
    """Return a row of a table."""
    return element("tr", classes, role="row")


def cell(header: str, content: str | None = None, classes: str = "", *, first: bool = False) -> Any:
    """Return a cell, which the caller fills if its content is None.

    A narrow screen shows the column's header next to it; the first cell is the row's header.
    """
    role = {"role": "rowheader", "scope": "row"} if first else {"role": "cell"}
    tag, about = "th" if first else "td", {**role, "data-label": header}
    if content is None:
        return element(tag, classes, **about)
    return text(tag, content, classes, **about)


def choice(
    label: str, options: Mapping[str, str], chosen: str, act: Callable[[str], Any], *, name: str
) -> None:
    """Draw a field with a list to choose from, labels by value.

    One value is chosen at first; `act` is called with the value when another is selected.
    """
    with element("div", "field"):
        text("label", label, **{"for": name})
        with element("select", id=name, name=name).on(
            "change", lambda event: act(event.args), js_handler=_TARGET_VALUE
        ):
            for value, shown in options.items():
                selected: dict[str, Any] = {"selected": True} if value == chosen else {}
                text("option", shown, value=value, **selected)


def radios(
    legend: str, options: Mapping[str, str], chosen: str, act: Callable[[str], Any], *, name: str
) -> None:
    """Draw a group of radio buttons; the arguments are those of `choice`."""
    with element("fieldset", "field"):
        text("legend", legend)
        for value, shown in options.items():
            key = f"{name}-{value}"
            with element("div", "option"):
                checked: dict[str, Any] = {"checked": True} if value == chosen else {}
                element("input", type="radio", name=name, id=key, value=value, **checked).on(
                    "change", lambda event: act(event.args), js_handler=_TARGET_VALUE
                )
                text("label", shown, **{"for": key})


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in attributes.items()}
