"""Prints what the demo did and what it got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from examples.us_income.accuracy import drift_forecast, measure, naive_forecast
from examples.us_income.data import HORIZON_YEARS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from examples.us_income.data import IncomePanel

__all__ = ["SHOWN_STATES", "Step", "error_table", "forecast_table", "show", "step_table"]

SHOWN_STATES = ("California", "New York", "Texas", "Michigan", "Mississippi", "Wyoming")
"""States that tables and lines show; errors are over all 48."""

# Windows that the table of states shows, by the last year known: a calm one, and the last one,
# whose last year is that of the recession.
_SHOWN_WINDOWS = (2003, 2006)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the demo.

    Attributes:
        name: What was done.
        result: What came of it.
        seconds: How long it was waited for.
    """

    name: str
    result: str
    seconds: float


def show(
    console: Console, steps: list[Step], panel: IncomePanel, forecast: NDArray[np.float32]
) -> None:
    """Print all tables; ``forecast`` is that of every held-out window, in US dollars."""
    console.print(step_table(steps))
    console.print(forecast_table(panel, forecast))
    console.print(error_table(panel, forecast))
    console.print()


def step_table(steps: list[Step]) -> Table:
    """Return the steps with their seconds and the sum."""
    table = _table("From the registry to a served forecast")
    table.show_footer = True
    table.add_column("step", footer="total", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column(
        "seconds", footer=f"{sum(step.seconds for step in steps):.1f}", justify="right"
    )
    for step in steps:
        table.add_row(step.name, step.result, f"{step.seconds:.1f}")
    return table


def forecast_table(panel: IncomePanel, forecast: NDArray[np.float32]) -> Table:
    """Return a few states three years ahead: what happened, what was served, the naive forecast."""
    windows = panel.held_out
    rows = [int((windows.last_year == year).nonzero()[0][0]) for year in _SHOWN_WINDOWS]
    table = _table(f"Income per head {HORIZON_YEARS} years ahead, US dollars")
    table.add_column("state", no_wrap=True)
    for year in _SHOWN_WINDOWS:
        table.add_column(f"{year + HORIZON_YEARS}", justify="right", style="bold")
        table.add_column("forecast", justify="right", style="cyan", no_wrap=True)
        table.add_column("naive", justify="right", style="dim")
    for state in SHOWN_STATES:
        place = panel.index(state)
        cells = []
        for row in rows:
            actual = float(windows.future[row, place, -1])
            last = float(windows.history[row, place, -1])
            served = float(forecast[row, place, -1])
            cells += [f"{actual:,.0f}", f"{served:,.0f} {_off(served, actual)}", _off(last, actual)]
        table.add_row(state, *cells)
    return table


def error_table(panel: IncomePanel, forecast: NDArray[np.float32]) -> Table:
    """Return the mean error over all states and held-out windows, next to two baselines."""
    windows = panel.held_out
    table = _table(
        f"Error over {len(panel.states)} states, {len(windows.history)} windows, "
        f"{windows.last_year[0] + 1} to {windows.last_year[-1] + HORIZON_YEARS}"
    )
    for name in ("", "mean absolute", "relative"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    rivals = {
        "served model": forecast,
        "naive (last value)": naive_forecast(windows.history, HORIZON_YEARS),
        "drift": drift_forecast(windows.history, HORIZON_YEARS),
    }
    for name, entry in rivals.items():
        accuracy = measure(entry, windows.future)
        style = "bold cyan" if name == "served model" else None
        table.add_row(name, f"${accuracy.mae:,.0f}", f"{accuracy.mape:.2f} %", style=style)
    return table


def _off(value: float, actual: float) -> str:
    return f"{100.0 * (value / actual - 1.0):+5.1f}%"


def _table(title: str) -> Table:
    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
