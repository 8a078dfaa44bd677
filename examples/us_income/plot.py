"""Draws forecasts against what happened: a map of tiles, one a state, and a few states as lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from examples.us_income.data import IncomePanel

__all__ = ["ForecastPicture", "draw"]

# Column and row of each state on the usual tile grid, with its postal code.
_TILES = {
    "Alabama": (6, 6, "AL"), "Arizona": (1, 5, "AZ"), "Arkansas": (4, 5, "AR"),
    "California": (0, 4, "CA"), "Colorado": (2, 4, "CO"), "Connecticut": (9, 3, "CT"),
    "Delaware": (9, 4, "DE"), "Florida": (8, 7, "FL"), "Georgia": (7, 6, "GA"),
    "Idaho": (1, 2, "ID"), "Illinois": (5, 2, "IL"), "Indiana": (5, 3, "IN"),
    "Iowa": (4, 3, "IA"), "Kansas": (3, 5, "KS"), "Kentucky": (5, 4, "KY"),
    "Louisiana": (4, 6, "LA"), "Maine": (10, 0, "ME"), "Maryland": (8, 4, "MD"),
    "Massachusetts": (9, 2, "MA"), "Michigan": (6, 2, "MI"), "Minnesota": (4, 2, "MN"),
    "Mississippi": (5, 6, "MS"), "Missouri": (4, 4, "MO"), "Montana": (2, 2, "MT"),
    "Nebraska": (3, 4, "NE"), "Nevada": (1, 3, "NV"), "New Hampshire": (10, 1, "NH"),
    "New Jersey": (8, 3, "NJ"), "New Mexico": (2, 5, "NM"), "New York": (8, 2, "NY"),
    "North Carolina": (6, 5, "NC"), "North Dakota": (3, 2, "ND"), "Ohio": (6, 3, "OH"),
    "Oklahoma": (3, 6, "OK"), "Oregon": (0, 3, "OR"), "Pennsylvania": (7, 3, "PA"),
    "Rhode Island": (10, 2, "RI"), "South Carolina": (7, 5, "SC"), "South Dakota": (3, 3, "SD"),
    "Tennessee": (5, 5, "TN"), "Texas": (3, 7, "TX"), "Utah": (1, 4, "UT"),
    "Vermont": (9, 1, "VT"), "Virginia": (7, 4, "VA"), "Washington": (0, 2, "WA"),
    "West Virginia": (6, 4, "WV"), "Wisconsin": (5, 1, "WI"), "Wyoming": (2, 3, "WY"),
}  # fmt: skip

_INK = "#22303c"
_MUTED = "#8796a5"
_GRID = "#e6ebf0"
_FORECAST = "#d1495b"
_DARK_TILE = 0.55

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}


@dataclass(frozen=True, slots=True)
class ForecastPicture:
    """What a picture shows.

    Attributes:
        panel: The data.
        forecast: float32 [windows, states, horizon], US dollars, one row a held-out window.
        shown: Names of the states drawn as lines; six fit well.
        caption: One line below the title.
    """

    panel: IncomePanel
    forecast: NDArray[np.float32]
    shown: tuple[str, ...]
    caption: str


def draw(picture: ForecastPicture, path: Path) -> None:
    """Write the picture as a PNG; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(14, 6.9), dpi=130, facecolor="white")
        years = picture.panel.held_out.last_year
        title = f"Income per head in 48 states, forecast for {years[0] + 1} to "
        title += f"{years[-1] + picture.forecast.shape[2]}"
        figure.text(0.03, 0.94, title, fontsize=18, weight="bold")
        figure.text(0.03, 0.897, picture.caption.replace("$", r"\$"), fontsize=11, color=_MUTED)
        grid = figure.add_gridspec(
            1, 2, width_ratios=(1.0, 1.12), left=0.03, right=0.985, top=0.82, bottom=0.06,
            wspace=0.1,
        )  # fmt: skip
        _draw_map(figure, figure.add_subplot(grid[0]), picture)
        rows = (len(picture.shown) + 2) // 3
        cells = grid[1].subgridspec(rows, 3, hspace=0.36, wspace=0.3)
        for place, state in enumerate(picture.shown):
            axes = figure.add_subplot(cells[place // 3, place % 3])
            _draw_lines(axes, picture, state)
            if place == 0:
                figure.legend(
                    *axes.get_legend_handles_labels(), loc="upper right", ncols=3, frameon=False,
                    bbox_to_anchor=(0.99, 0.93),
                )  # fmt: skip
        figure.savefig(path)


def _draw_map(figure: Figure, axes: Axes, picture: ForecastPicture) -> None:
    """Colour every state by its mean relative error over all windows and years, in percent."""
    future = picture.panel.held_out.future.astype(np.float64)
    error = 100.0 * np.abs(picture.forecast / future - 1.0).mean(axis=(0, 2))
    norm = Normalize(0.0, float(np.ceil(error.max())))
    colours = mpl.colormaps["PuBu"]
    for state, value in zip(picture.panel.states, error, strict=True):
        column, row, code = _TILES[state]
        axes.add_patch(
            FancyBboxPatch(
                (column - 0.45, row - 0.45), 0.9, 0.9, linewidth=0,
                boxstyle="round,pad=0,rounding_size=0.1", facecolor=colours(norm(value)),
            )
        )  # fmt: skip
        ink = "white" if norm(value) > _DARK_TILE else _INK
        axes.text(column, row - 0.12, code, ha="center", va="center", color=ink, weight="bold")
        axes.text(
            column, row + 0.21, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8.5
        )
    axes.set(xlim=(-0.55, 10.55), ylim=(7.6, -0.55), aspect="equal", anchor="W")
    axes.axis("off")
    axes.text(-0.45, -0.35, "Mean error of the served forecast, percent", fontsize=11.5)
    scale = mpl.cm.ScalarMappable(norm, colours)
    bar = figure.colorbar(
        scale, cax=axes.inset_axes((0.01, 0.895, 0.34, 0.022)), orientation="horizontal"
    )
    bar.ax.tick_params(length=0, labelsize=8.5)
    bar.outline.set_visible(False)


def _draw_lines(axes: Axes, picture: ForecastPicture, state: str) -> None:
    """Draw one state in thousands of dollars: what happened, and a strand for every window."""
    windows = picture.panel.held_out
    place = picture.panel.index(state)
    horizon = picture.forecast.shape[2]
    first, end = int(windows.last_year[0]) - 4, int(windows.last_year[-1]) + horizon
    known = (picture.panel.years >= first) & (picture.panel.years <= end)
    years, income = picture.panel.years[known], picture.panel.income[place, known] / 1000.0
    for row, origin in enumerate(windows.last_year):
        ahead = np.arange(origin, origin + horizon + 1)
        last = windows.history[row, place, -1] / 1000.0
        axes.plot(
            ahead, np.full(horizon + 1, last), color="#b4bfca", linewidth=1.1,
            linestyle=(0, (2, 1.6)), label="last value" if row == 0 else None,
        )  # fmt: skip
        axes.plot(
            ahead, [last, *picture.forecast[row, place] / 1000.0], color=_FORECAST,
            linewidth=1.3, alpha=0.9, zorder=3, label="served forecast" if row == 0 else None,
        )  # fmt: skip
    axes.plot(years, income, color=_INK, linewidth=2.2, zorder=2.5, label="actual")
    axes.set_title(state, loc="left", fontsize=11.5, weight="bold")
    axes.set_xlim(first - 0.3, end + 0.3)
    axes.set_xticks([first, int(windows.last_year[0]), end])
    axes.yaxis.set_major_formatter(lambda value, _: rf"\${value:.0f}k")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
