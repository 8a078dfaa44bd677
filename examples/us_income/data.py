"""Per-capita income of the 48 contiguous US states, 1929 to 2009, and which state touches which.

The figures are those of the Bureau of Economic Analysis (Regional Economic Information System),
the neighbourhood is by shared border. Both files travel inside the wheel of libpysal; they are
read from where it is installed, without importing it and without any download.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FIRST_HELD_OUT_YEAR",
    "HISTORY_YEARS",
    "HORIZON_YEARS",
    "IncomePanel",
    "Windows",
    "load_panel",
]

HISTORY_YEARS = 10
"""Years that a forecast looks back on."""

HORIZON_YEARS = 3
"""Years that a forecast looks ahead."""

FIRST_HELD_OUT_YEAR = 2000
"""The model is fitted on the years before this one and judged on the years from it on."""

_FOLDER = Path("examples", "us_income")


@dataclass(frozen=True, slots=True)
class Windows:
    """Histories and what followed them, one row a starting year.

    Attributes:
        history: float32 [windows, states, HISTORY_YEARS], US dollars.
        future: float32 [windows, states, HORIZON_YEARS], US dollars.
        last_year: int64 [windows], the last year of each history.
    """

    history: NDArray[np.float32]
    future: NDArray[np.float32]
    last_year: NDArray[np.int64]


@dataclass(frozen=True)
class IncomePanel:
    """A panel of nominal per-capita incomes.

    Attributes:
        states: Names of the states, in the order of all other axes.
        years: int64 [years], calendar years.
        income: float32 [states, years], US dollars a head and year, not adjusted for inflation.
        adjacency: float32 [states, states], 1 where two states share a border, else 0; symmetric,
            with zeros on the diagonal.
    """

    states: tuple[str, ...]
    years: NDArray[np.int64]
    income: NDArray[np.float32]
    adjacency: NDArray[np.float32]

    @cached_property
    def training(self) -> Windows:
        """Every window that ends before ``FIRST_HELD_OUT_YEAR``."""
        return self.windows(int(self.years[0]), FIRST_HELD_OUT_YEAR - 1)

    @cached_property
    def held_out(self) -> Windows:
        """Every window whose future lies wholly in the held-out years."""
        return self.windows(FIRST_HELD_OUT_YEAR - HISTORY_YEARS, int(self.years[-1]))

    def windows(self, first_year: int, last_year: int) -> Windows:
        """Cut all windows of history and future that lie within two years, both included.

        Raises:
            ValueError: The years are too few for one window.
        """
        start = int(np.searchsorted(self.years, first_year))
        stop = int(np.searchsorted(self.years, last_year)) + 1
        length = HISTORY_YEARS + HORIZON_YEARS
        if stop - start < length:
            raise ValueError(f"{first_year} to {last_year} holds no window of {length} years")
        view = np.lib.stride_tricks.sliding_window_view(self.income[:, start:stop], length, axis=1)
        rows = np.ascontiguousarray(view.transpose(1, 0, 2))
        return Windows(
            history=np.ascontiguousarray(rows[:, :, :HISTORY_YEARS]),
            future=np.ascontiguousarray(rows[:, :, HISTORY_YEARS:]),
            last_year=self.years[start + HISTORY_YEARS - 1 : stop - HORIZON_YEARS].copy(),
        )

    def index(self, state: str) -> int:
        """Return the position of a state on the axis of states."""
        return self.states.index(state)


def load_panel() -> IncomePanel:
    """Read the panel from the installed libpysal.

    Raises:
        ModuleNotFoundError: libpysal is not installed.
    """
    folder = _libpysal_folder() / _FOLDER
    states, years, income = _read_incomes(folder / "usjoin.csv")
    adjacency = _read_adjacency(folder / "states48.gal", len(states))
    return IncomePanel(states, years, income, adjacency)


def _libpysal_folder() -> Path:
    # find_spec does not run the package, which would import geopandas and all that it needs.
    spec = find_spec("libpysal")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the data of this example is part of libpysal: pip install libpysal", name="libpysal"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _read_incomes(
    path: Path,
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float32]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    years = np.array([int(year) for year in header[2:]], dtype=np.int64)
    states = tuple(row[0] for row in rows)
    income = np.array([[float(value) for value in row[2:]] for row in rows], dtype=np.float32)
    return states, years, income


def _read_adjacency(path: Path, size: int) -> NDArray[np.float32]:
    """Read a GAL file: the number of nodes, then each node, its degree and its neighbours."""
    numbers = [int(word) for word in path.read_text(encoding="utf-8").split()]
    if numbers[0] != size:
        raise ValueError(f"{path.name} is about {numbers[0]} nodes, not {size}")
    adjacency = np.zeros((size, size), dtype=np.float32)
    position = 1
    while position < len(numbers):
        node, degree = numbers[position : position + 2]
        neighbours = numbers[position + 2 : position + 2 + degree]
        adjacency[node, neighbours] = 1.0
        position += 2 + degree
    return adjacency
