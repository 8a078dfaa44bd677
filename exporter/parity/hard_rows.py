"""Builds rows that hold the values at which a model's operators are hard to compute."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.parity.hard_values import (
    LARGE,
    are_paired,
    drops_nan,
    hard_values,
    hard_whole_numbers,
)
from exporter.parity.input_generator import rows_of
from exporter.parity.value_generators import is_code

__all__ = ["filled", "hard_rows"]

# Values of which all pairs are made, and rows in which values are mixed at random.
PAIRED = 7
MIXED = 4
# Elements of all rows of a kind; a large input has fewer rows.
MOST_ELEMENTS = 2**20

Row = dict[str, Array]


def hard_rows(
    operators: Iterable[str], typical: Arrays, example: Arrays | None, most: int
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield rows by kind: ordinary values, large ones, those that are not finite, whole numbers.

    They are made of *typical* rows, by input name. A value is in one element of a row, in all of
    them, and next to every other one where operators combine two. At most *most* rows of a kind are
    made. Kinds are apart since one huge answer widens the budgets of the others.
    """
    operators = frozenset(operators)
    quantities = [name for name, array in typical.items() if _is_quantity(name, array, example)]
    values, paired = hard_values(operators), are_paired(operators)
    ordinary = [value for value in values if abs(value) < LARGE]
    kinds = {
        "values": ordinary,
        "large values": [value for value in values if LARGE <= abs(value) < math.inf],
        "values that are not finite": [
            value for value in values if not math.isfinite(value) and not drops_nan(operators)
        ],
    }
    elements = sum(array[:1].size for array in typical.values())
    most = min(most, max(2, MOST_ELEMENTS // max(elements, 1)))
    for kind, held in kinds.items():
        if held and quantities:
            partners = [*held, *_spread(ordinary, 2)] if held is not ordinary else held
            made = _Rows(typical, quantities)
            made.fill(held, _spread(partners, PAIRED) if paired else ())
            yield kind, made.stacked(most)
    whole = hard_whole_numbers(operators)
    for name, array in typical.items():
        given = None if example is None or array.dtype.kind != "i" else example[name]
        if not whole or given is None or not given.size or given.min() >= 0:
            continue  # what is never negative may be an index
        held = [value for value in whole if given.min() <= value <= given.max()]
        if held:
            made = _Rows(typical, [n for n, a in typical.items() if a.dtype == array.dtype])
            made.fill(held, held)
            yield "whole numbers", made.stacked(most)
        return


def filled(rows: Arrays, typical: Arrays) -> dict[str, Array]:
    """Return as many rows as there are *typical* ones, which make up for those that are missing."""
    return {
        name: np.concatenate([array, typical[name][len(array) :]]) for name, array in rows.items()
    }


def _is_quantity(name: str, array: Array, example: Arrays | None) -> bool:
    if array.dtype.kind != "f" or array[:1].size == 0:
        return False
    return example is None or not is_code(example[name])


def _spread(values: Sequence[float], count: int) -> Sequence[float]:
    """Some of the values, from the first to the last."""
    if len(values) <= count:
        return values
    return [values[place] for place in np.linspace(0, len(values) - 1, count).astype(int)]


class _Rows:
    """Rows of all inputs, of which some hold hard values."""

    def __init__(self, typical: Arrays, names: Sequence[str]) -> None:
        self._typical = typical
        self._names = names
        self._random = np.random.default_rng(len(names))
        self._made: list[Row] = []

    def fill(self, values: Sequence[float], partners: Sequence[float]) -> None:
        """Make rows with each value, with pairs of *partners*, and with all of them at random."""
        for value in values:
            row = self._next()
            for name in self._names:
                row[name].flat[self._random.integers(row[name].size)] = value
            for name in self._names:
                self._next()[name][...] = value
        for left, right in product(partners, partners):
            self._pair(self._next(), left, right)
        for _ in range(MIXED):
            row = self._next()
            for name in self._names:
                chosen = self._random.random(row[name].shape) < 0.5
                drawn = self._random.choice(np.array(values), row[name].shape)
                row[name][chosen] = drawn[chosen].astype(row[name].dtype)

    def _pair(self, row: Row, left: float, right: float) -> None:
        first, *others = self._names
        row[first][...] = left
        for name in others:
            row[name][...] = right
        if not others:
            row[first].flat[1::2] = right

    def _next(self) -> Row:
        place = len(self._made) % rows_of(self._typical)
        # An array of no axes is no row, and is not written to.
        row = {name: np.array(array[place]) for name, array in self._typical.items()}
        self._made.append(row)
        return row

    def stacked(self, most: int) -> dict[str, Array]:
        """Return the rows as one batch, or *most* of them."""
        places = np.arange(len(self._made))
        if len(places) > most:
            places = np.linspace(0, len(places) - 1, most).astype(int)
        return {
            name: np.stack([self._made[place][name] for place in places]).astype(array.dtype)
            for name, array in self._typical.items()
        }
