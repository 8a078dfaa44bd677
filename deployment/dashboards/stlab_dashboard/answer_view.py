"""Draws one answer: how long it took, how it lies to the registry's, its values, its pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nicegui import ui

from exporter.commands.infer.result import described, plain
from stlab_dashboard.elements import cell, element, row, state, table, text

if TYPE_CHECKING:
    from exporter.commands.infer.result import InferResult
    from exporter.commands.status.result import AliasState
    from stlab_dashboard.asking import Verdict
    from stlab_dashboard.income import Forecasts

__all__ = ["draw_answer"]

_COLUMNS = ("Output", "Type", "Shape", "First values", "Least", "Mean", "Greatest")
_MOST_VALUES = 2000


def draw_answer(
    answer: InferResult,
    way: str,
    named: AliasState,
    verdict: Verdict | None,
    forecasts: Forecasts | None,
) -> None:
    """Show an answer.

    Args:
        answer: What came.
        way: ``service`` or ``triton``.
        named: The alias that was chosen.
        verdict: How it lies to the registry's; None where that is not known.
        forecasts: The demo's forecasts in it; None where it is another answer.
    """
    who = {"service": "the service", "triton": "Triton"}[way]
    text("h2", "The answer")
    with element("p"):
        text("strong", f"{1000 * (answer.seconds or 0.0):.1f} ms")
        version = "" if answer.version is None else f" by version {answer.version}"
        text("span", f" there and back, answered{version} through {who}.")
    if verdict is not None:
        _draw_verdict(verdict)
    elif answer.version not in {None, named.version}:
        state("warn", f"{who} answers with version {answer.version}, and '{named.alias}' names "
                      f"version {named.version}: the answers are not compared")  # fmt: skip
    if forecasts is not None:
        _draw_forecasts(forecasts)
    with table("The outputs", _COLUMNS):
        for name, array in answer.outputs.items():
            with row():
                for place, content in enumerate(described(name, array)):
                    header = _COLUMNS[place]
                    number = "number" if place > 3 else ""
                    cell(header, content, number, first=place == 0)
    with element("details"):
        text("summary", "All values")
        for name, array in answer.outputs.items():
            text("h3", name)
            cut = array.reshape(-1)[:_MOST_VALUES] if array.size > _MOST_VALUES else array
            note = f" (the first {_MOST_VALUES} of {array.size})" if cut is not array else ""
            text("pre", json.dumps(plain(cut)) + note, tabindex="0")


def _draw_verdict(verdict: Verdict) -> None:
    with element("p", "verdict"):
        if verdict.problem:
            state("bad", f"differs from the registered model: {verdict.problem}")
            return
        state("good", "equals the registered model's answer")
        text(
            "span",
            f" Largest difference {verdict.max_abs_error:.3g}, which is {verdict.margin:.3g} of "
            "the budget.",
        )


def _draw_forecasts(forecasts: Forecasts) -> None:
    shown = list(forecasts.first_shown)
    text("h2", "Forecast and actual by state")
    text(
        "p",
        f"Income per head, thousands of dollars a year. The mean error over all "
        f"{len(forecasts.states)} states is {forecasts.error:.1f} %.",
    )
    with element("ul", "legend"):
        text("li", "actual", "actual")
        text("li", "forecast, three years from each year", "forecast")
    pictures = element("div", "pictures")
    _draw_states(pictures, forecasts, shown)
    with element("details", "states"):
        text("summary", "Choose states")
        with element("fieldset", "grid"):
            text("legend", "States that are drawn", "hidden")
            for place, name in enumerate(forecasts.states):
                _draw_box(place, name, shown, lambda: _draw_states(pictures, forecasts, shown))


def _draw_box(place: int, name: str, shown: list[str], draw: Any) -> None:
    def switch(on: bool) -> None:
        if on and name not in shown:
            shown.append(name)
        elif not on and name in shown:
            shown.remove(name)
        draw()

    with element("div", "option"):
        checked: dict[str, Any] = {"checked": True} if name in shown else {}
        element("input", type="checkbox", id=f"state-{place}", **checked).on(
            "change",
            lambda event: switch(bool(event.args)),
            js_handler="(event) => emit(event.target.checked)",
        )
        text("label", name, **{"for": f"state-{place}"})


def _draw_states(place: Any, forecasts: Forecasts, shown: list[str]) -> None:
    place.clear()
    with place:
        if not shown:
            text("p", "No state is chosen.")
        for name in shown:
            year, actual, forecast = forecasts.last(name)
            with element("figure"):
                with element("figcaption"):
                    text("h3", name)
                    text(
                        "p",
                        f"{year}: ${actual:,.0f} actual, ${forecast:,.0f} forecast; mean error "
                        f"{forecasts.error_of(name):.1f} %",
                        "quiet",
                    )
                # Numbers and names of ours, escaped where they are written.
                ui.html(forecasts.drawn(name), sanitize=False)
