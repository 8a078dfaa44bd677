"""The demo's page of the dashboard: forecast and actual income per head, state by state.

A plug-in of ``stlab_dashboard.pages``; pyproject.toml names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nicegui import ui

from examples.us_income.data import IncomePanel, load_panel
from examples.us_income.summary import SHOWN_STATES
from exporter.errors import NotFoundError, StlabError, ValidationFailedError
from stlab_dashboard.charts import Line, chart
from stlab_dashboard.elements import button, choice, element, radios, text
from stlab_dashboard.inference import SERVERS
from stlab_dashboard.layout import notice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nicegui.element import Element

    from exporter.commands.status.result import AliasState
    from stlab_dashboard.plugins import PageContext

__all__ = ["Forecasts", "IncomePage"]

_MODEL = "income"
_YEARS_BEFORE = 5


class IncomePage:
    """Runs the model on every held-out window, and draws what it forecast."""

    path = "/income"
    title = "Incomes"

    async def draw(self, context: PageContext) -> None:
        """Draw a form; the forecasts follow when it is sent."""
        aliases = {alias.alias: alias for alias in await context.aliases(_MODEL)}
        if not aliases:
            raise NotFoundError(
                f"no alias of '{_MODEL}' points to a version with passed evidence",
                hint="Run the demo: make demo",
            )
        form = {"alias": next(iter(aliases)), "via": "service"}

        async def send() -> None:
            status.text = "Running …"
            response.clear()
            with response:
                try:
                    _draw_forecasts(await _forecasts(context, aliases[form["alias"]], form["via"]))
                    status.text = "Done."
                except StlabError as error:
                    notice(error.as_dict(), "The request failed")
                    status.text = "Failed."

        text("p", "Forecasts for the years that the model was not fitted on, next to the actual.")
        with element("section", "form", aria_label="Request"):
            with element("div", "fields"):
                names = {name: f"{name} (version {a.version})" for name, a in aliases.items()}
                choice("Alias", names, form["alias"], lambda v: form.update(alias=v), name="alias")
                radios("Send to", SERVERS, "service", lambda v: form.update(via=v), name="via")
            with element("div", "bar"):
                button("Forecast", send, "primary")
                status = text("p", "", "quiet", role="status")
        response = element("section", aria_label="Forecasts")


async def _forecasts(context: PageContext, alias: AliasState, via: str) -> Forecasts:
    panel = load_panel()
    history = {"history": panel.held_out.history}
    result = await context.infer(_MODEL, history, via=via, version=alias.version)
    forecast = result.outputs.get("forecast")
    if forecast is None or forecast.shape != panel.held_out.future.shape:
        raise ValidationFailedError(f"'{_MODEL}' is not the demo's model", hint="Run: make demo")
    return Forecasts(panel, np.asarray(forecast, np.float64))


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts of all held-out windows.

    Attributes:
        panel: The demo's data.
        forecast: float [windows, states, years ahead], US dollars.
    """

    panel: IncomePanel
    forecast: Any

    def error(self, state: str | None = None) -> float:
        """Return the mean error in percent, of one state or of all."""
        place = slice(None) if state is None else self.panel.index(state)
        actual = self.panel.held_out.future[:, place]
        return float(100.0 * np.abs(self.forecast[:, place] / actual - 1.0).mean())

    def caption(self, state: str) -> str:
        """Return the last year's forecast and actual income of a state, and its mean error."""
        place = self.panel.index(state)
        year = int(self.panel.held_out.last_year[-1]) + self.forecast.shape[2]
        actual = self.panel.held_out.future[-1, place, -1]
        return (
            f"{year}: ${actual:,.0f} actual, ${self.forecast[-1, place, -1]:,.0f} forecast; "
            f"mean error {self.error(state):.1f} %"
        )

    def chart(self, state: str) -> str:
        """Return a chart of one state, in thousands of dollars, as SVG."""
        windows, place = self.panel.held_out, self.panel.index(state)
        years, ahead = self.panel.years, self.forecast.shape[2]
        first = int(windows.last_year[0]) - _YEARS_BEFORE
        last = int(windows.last_year[-1]) + ahead
        known = (years >= first) & (years <= last)
        lines = [Line("series-1", _points(years[known], self.panel.income[place, known]))]
        for row, origin in enumerate(windows.last_year):
            values = [windows.history[row, place, -1], *self.forecast[row, place]]
            lines.append(Line("series-2", _points(range(origin, origin + ahead + 1), values)))
        return chart(
            lines,
            f"{state}: income per head from {first} to {last}, forecast and actual; mean error "
            f"{self.error(state):.1f} percent",
            x_text=lambda year: f"{year:.0f}",
            y_text=lambda value: f"${value:g}k",
        )


def _points(years: Iterable[Any], dollars: Iterable[Any]) -> list[tuple[float, float]]:
    return [(float(year), float(value) / 1000) for year, value in zip(years, dollars, strict=True)]


def _draw_forecasts(forecasts: Forecasts) -> None:
    states = forecasts.panel.states
    shown = list(SHOWN_STATES)
    text("h2", "Forecast and actual by state")
    text(
        "p",
        "Income per head, thousands of dollars a year. The mean error over all "
        f"{len(states)} states is {forecasts.error():.1f} %.",
    )
    with element("ul", "legend"):
        text("li", "actual", "series-1")
        text("li", "forecast, three years from each year", "series-2")
    figures = element("div", "figures")
    _draw_figures(figures, forecasts, shown)

    def show(state: str, on: bool) -> None:
        if on != (state in shown):
            shown.append(state) if on else shown.remove(state)
        _draw_figures(figures, forecasts, shown)

    with element("details", "states"):
        text("summary", "Choose states")
        with element("fieldset", "grid"):
            text("legend", "States to show", "hidden")
            for place, state in enumerate(states):
                _draw_box(f"state-{place}", state, state in shown, show)


def _draw_box(key: str, state: str, checked: bool, show: Any) -> None:
    with element("div", "option"):
        given: dict[str, Any] = {"checked": True} if checked else {}
        element("input", type="checkbox", id=key, **given).on(
            "change",
            lambda event: show(state, bool(event.args)),
            js_handler="(event) => emit(event.target.checked)",
        )
        text("label", state, **{"for": key})


def _draw_figures(figures: Element, forecasts: Forecasts, shown: list[str]) -> None:
    figures.clear()
    with figures:
        if not shown:
            text("p", "No state is chosen.")
        for state in shown:
            with element("figure"):
                with element("figcaption"):
                    text("h3", state)
                    text("p", forecasts.caption(state), "quiet")
                ui.html(forecasts.chart(state), sanitize=False)  # chart() escapes its texts
