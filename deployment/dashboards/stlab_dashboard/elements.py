"""Plain semantic HTML elements: headings, tables, fields, states in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nicegui import context, ui
from nicegui.elements.mixins.text_element import TextElement

if TYPE_CHECKING:
    from nicegui.element import Element

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
    """Return a state: a mark, words and a colour.

    Args:
        kind: ``good``, ``bad``, ``warn`` or ``none``.
        words: The state.
    """
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

    Roles are explicit, since a table that is displayed as blocks loses its own.

    Args:
        caption: The caption.
        headers: The column headers.
        hidden: Whether only screen readers get the caption.
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
    """Return a cell.

    Args:
        header: The header of its column, shown next to it on a narrow screen.
        content: Its text; None for a cell that the caller fills.
        classes: Its classes.
        first: Whether it is the header of its row.
    """
    tag = "th" if first else "td"
    about = {"role": "rowheader" if first else "cell", "data-label": header}
    if first:
        about["scope"] = "row"
    if content is None:
        return element(tag, classes, **about)
    return text(tag, content, classes, **about)


def choice(
    label: str, options: Mapping[str, str], chosen: str, act: Callable[[str], Any], *, name: str
) -> None:
    """Draw a field with a list to choose from.

    Args:
        label: The label.
        options: The labels by value.
        chosen: The value selected at first.
        act: Called with the value when another is selected.
        name: The field's name.
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
