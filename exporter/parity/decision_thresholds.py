"""Finds the thresholds at which a reference's outputs jump, and inputs on them.

Random numbers never hit a threshold. Those of production do: prices in cents, whole numbers and
times are halfway between others of their kind, where trees split. Only there a threshold shows that
was rounded during conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.parity.input_generator import rows_of

if TYPE_CHECKING:
    from exporter.sources.base import Source

__all__ = ["threshold_inputs"]

# Halving the distance between two float64 numbers of one magnitude ends after 53 steps.
STEPS = 64
# The largest relative distance over which float32 rounds a number to its neighbour.
NEAR = 2.0**-23
DIGITS = 6
# The share of the whole change that makes a jump; less is a slope.
JUMP = 1e-3


@dataclass(frozen=True, slots=True)
class _Place:
    """One value of a row, which is moved to that of the next row while the others stay."""

    name: str
    column: int
    row: int


def threshold_inputs(source: Source, rows: Arrays, most: int) -> Arrays | None:
    """Return rows in which one value is on a threshold, or None where no output jumps.

    At most *most* thresholds are searched between the values of at least two rows. For each there
    are rows with the last number below it, with the first one above it, and with the short decimal
    number between them, if there is one.

    Raises:
        InputRejectedError: The reference refuses such rows.
    """
    count = rows_of(rows)
    places = list(islice(_places(rows), most))
    if not places:
        return None
    start = np.array([rows[p.name][p.row, p.column] for p in places], dtype=np.float64)
    end = np.array([rows[p.name][(p.row + 1) % count, p.column] for p in places], np.float64)
    low, high = _bisected(source, rows, places, start, end)
    found = [
        (place, value)
        for place, below, above in zip(places, low, high, strict=True)
        if below != above
        for value in (below, above, *_short(below, above))
    ]
    if not found:
        return None
    return _moved(rows, [place for place, _ in found], [value for _, value in found])


def _places(rows: Arrays) -> Iterator[_Place]:
    count = rows_of(rows)
    columns = [
        (name, column)
        for name, array in rows.items()
        if array.dtype.kind == "f" and array.ndim == 2
        for column in range(array.shape[1])
    ]
    for row in range(count):
        for name, column in columns:
            here, there = rows[name][[row, (row + 1) % count], column]
            if np.isfinite(here) and np.isfinite(there) and here != there:
                yield _Place(name, column, row)


def _bisected(
    source: Source, rows: Arrays, places: list[_Place], low: Array, high: Array
) -> tuple[Array, Array]:
    """Return the neighbouring numbers between which outputs jump; equal where they do not."""
    before, after = (_numbers(source, _moved(rows, places, values)) for values in (low, high))
    whole = _distance(before, after)
    for _ in range(STEPS):
        moved = _moved(rows, places, low / 2 + high / 2)  # their sum may be too large
        middle = np.array([moved[p.name][i, p.column] for i, p in enumerate(places)], np.float64)
        between = _numbers(source, moved)
        back = _distance(before, between) <= _distance(between, after)
        before, low = np.where(back[:, None], between, before), np.where(back, middle, low)
        after, high = np.where(back[:, None], after, between), np.where(back, high, middle)
    jumps = (whole > 0) & (_distance(before, after) > JUMP * whole)
    return low, np.where(jumps, high, low)


def _moved(rows: Arrays, places: list[_Place], values: Iterable[float]) -> dict[str, Array]:
    """Return a row for every place, with a value there; it is rounded to the input's dtype."""
    moved = {name: array[[place.row for place in places]] for name, array in rows.items()}
    for number, (place, value) in enumerate(zip(places, values, strict=True)):
        moved[place.name][number, place.column] = value
    return moved


def _numbers(source: Source, rows: Arrays) -> Array:
    """Return the numbers of all outputs side by side, [rows, n]."""
    outputs = source.run(rows)
    parts = [a.reshape(len(a), -1) for a in outputs.values() if a.dtype.kind == "f"]
    whole: Array = np.concatenate([np.zeros((rows_of(rows), 1)), *parts], axis=1)
    return np.nan_to_num(whole)


def _distance(left: Array, right: Array) -> Array:
    return np.asarray(np.abs(left - right).max(axis=1))


def _short(below: float, above: float) -> Iterator[float]:
    """Yield the shortest decimal number that is as near to a threshold as float32 tells apart."""
    for digits in range(1, DIGITS + 1):
        value = float(f"{above:.{digits}g}")
        if abs(value - above) <= NEAR * abs(above):
            if value not in {below, above}:
                yield value
            return
