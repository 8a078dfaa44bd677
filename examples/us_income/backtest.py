"""Fits on the years before a decade and forecasts the decade, four times over.

    python -m examples.us_income.backtest

The figures of the README come from here. The settings were chosen
on the decades before 2000.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from examples.us_income.accuracy import Accuracy, drift_forecast, measure, naive_forecast
from examples.us_income.data import HISTORY_YEARS, HORIZON_YEARS, load_panel
from examples.us_income.fit import FitSettings, fit, forecast

if TYPE_CHECKING:
    from examples.us_income.data import IncomePanel

_SEEDS = range(3)


def main() -> None:
    """Print one line a decade: mean absolute errors in dollars and percent."""
    panel = load_panel()
    table = Table(title="Error one to three years ahead, mean over states")
    table.add_column("forecast", no_wrap=True)
    for name in ("last value", "drift", "model", "worst seed"):
        table.add_column(name, justify="right", no_wrap=True)
    for first in (1970, 1980, 1990, 2000):
        table.add_row(f"{first}-{first + 9}", *(_show(entry) for entry in _decade(panel, first)))
    Console().print(table)


def _decade(panel: IncomePanel, first: int) -> list[Accuracy]:
    """Return the accuracy of the last value, of drift, and of the model: its mean and worst."""
    past = panel.windows(int(panel.years[0]), first - 1)
    test = panel.windows(first - HISTORY_YEARS, first + 9)
    fitted = [
        measure(
            forecast(fit(panel.adjacency, past, FitSettings(seed=seed)), test.history), test.future
        )
        for seed in _SEEDS
    ]
    mean = Accuracy(fmean(entry.mae for entry in fitted), fmean(entry.mape for entry in fitted))
    return [
        measure(naive_forecast(test.history, HORIZON_YEARS), test.future),
        measure(drift_forecast(test.history, HORIZON_YEARS), test.future),
        mean,
        max(fitted, key=lambda entry: entry.mae),
    ]


def _show(accuracy: Accuracy) -> str:
    return f"${accuracy.mae:,.0f} {accuracy.mape:.1f}%"


if __name__ == "__main__":
    main()
