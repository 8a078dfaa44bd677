"""The demo's model: what it is asked, and forecasts beside what happened, state by state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stlab_dashboard.charts import Line, chart

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MODEL", "Forecasts", "forecasts_of", "history", "panel"]

MODEL = "income"
_YEARS_BEFORE = 5


@lru_cache(maxsize=1)
def panel() -> Any | None:
    """Return the demo's data, or None where the demo or its data is not installed."""
    try:
        from examples.us_income.data import load_panel

        return load_panel()
    except (ImportError, OSError, ValueError):
        return None


def history(inputs: tuple[str, ...]) -> dict[str, Any] | None:
    """Return every held-out history as the model's one input, float32 [windows, states, years]."""
    data = panel()
    if data is None or len(inputs) != 1:
        return None
    return {inputs[0]: data.held_out.history}


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts of all held-out windows.

    Attributes:
        data: The demo's panel.
        forecast: float [windows, states, years ahead], US dollars.
    """

    data: Any
    forecast: Any

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states."""
        return tuple(self.data.states)

    @property
    def first_shown(self) -> tuple[str, ...]:
        """The states that the demo shows."""
        from examples.us_income.summary import SHOWN_STATES

        return SHOWN_STATES

    @property
    def error(self) -> float:
        """The mean error over all states and windows, in percent of what happened."""
        return _percent(self.forecast, self.data.held_out.future)

    def error_of(self, state: str) -> float:
        """Return the mean error of one state, in percent of what happened."""
        place = self.data.index(state)
        return _percent(self.forecast[:, place], self.data.held_out.future[:, place])

    def drawn(self, state: str) -> str:
        """Return a chart of one state, in thousands of dollars."""
        windows, place = self.data.held_out, self.data.index(state)
        ahead = self.forecast.shape[2]
        first = int(windows.last_year[0]) - _YEARS_BEFORE
        last = int(windows.last_year[-1]) + ahead
        known = (self.data.years >= first) & (self.data.years <= last)
        lines = [Line("actual", _points(self.data.years[known], self.data.income[place, known]))]
        for row, origin in enumerate(windows.last_year):
            values = [windows.history[row, place, -1], *self.forecast[row, place]]
            lines.append(Line("forecast", _points(range(origin, origin + ahead + 1), values)))
        return chart(
            lines,
            f"{state}: income per head from {first} to {last}, forecast and actual; mean error "
            f"{self.error_of(state):.1f} percent",
            x_text=lambda year: f"{year:.0f}",
            y_text=lambda value: f"${value:g}k",
        )

    def last(self, state: str) -> tuple[int, float, float]:
        """Return the last year forecast, what happened in it, and what was forecast."""
        place = self.data.index(state)
        year = int(self.data.held_out.last_year[-1]) + self.forecast.shape[2]
        actual = float(self.data.held_out.future[-1, place, -1])
        return year, actual, float(self.forecast[-1, place, -1])


def forecasts_of(outputs: Mapping[str, Any]) -> Forecasts | None:
    """Return the forecasts in an answer to `history`; None where it is another answer."""
    data = panel()
    if data is None or len(outputs) != 1:
        return None
    (forecast,) = outputs.values()
    if forecast.shape != data.held_out.future.shape:
        return None
    return Forecasts(data, np.asarray(forecast, np.float64))


def _points(years: Any, dollars: Any) -> list[tuple[float, float]]:
    return [
        (float(year), float(value) / 1000.0) for year, value in zip(years, dollars, strict=True)
    ]


def _percent(forecast: Any, future: Any) -> float:
    return float(100.0 * np.abs(forecast / future - 1.0).mean())
