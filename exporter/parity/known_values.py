"""Runs the reference on the values that it knows, which its example need not show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.parity.input_generator import rows_of, take_rows
from exporter.sources.base import InputRejectedError
from exporter.sources.known_values import (
    CATEGORIES,
    INDICES,
    LIMITS,
    MISSING,
    SPLITS,
    UNKNOWN,
    WORDS,
    KnownValues,
)

__all__ = ["KnownRows"]

_MOST_ROWS = 1024
_COMBINATIONS = 256
_COUNTED = (CATEGORIES, WORDS, INDICES)
_ORDER = (*_COUNTED, UNKNOWN, MISSING, LIMITS)

Run = Callable[[str, Arrays], None]
"""Runs the reference on rows and keeps the case, under a name; raises InputRejectedError."""


@dataclass
class KnownRows:
    """Makes rows that hold known values, and runs them.

    Args:
        typical: Typical rows that the model takes, in which values are replaced.
        known: The values.
        most: The most rows to run at once.
        limit: The most rows of each kind.

    Attributes:
        shown: How much of each counted kind the model took, and how much there is.
        rejected: The kinds and inputs of values that the model refuses.
        refused: A row for each of these, with its kind and input as a name.
    """

    typical: Arrays
    known: Sequence[KnownValues]
    most: int
    limit: int = _MOST_ROWS
    shown: dict[str, tuple[int, int]] = field(default_factory=dict)
    rejected: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, Arrays] = field(default_factory=dict)
    _taken: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def run(self, run: Run) -> None:
        """Run every value, a kind at a time, and then values of all kinds combined."""
        for kind in _ORDER:
            known = [number for number, one in enumerate(self.known) if one.kind == kind]
            if known:
                self._run_kind(kind, known, run)
        self._run_combined(run)

    def _run_kind(self, kind: str, known: list[int], run: Run) -> None:
        # Values that the model was fitted to are taken in every column at once. Others may be
        # refused in one column and taken in the next.
        plans = self._together(known) if kind in _COUNTED else self._one_by_one(known)
        plans = plans[: self.limit]
        for start in range(0, len(plans), self.most):
            name = f"{kind} {start // self.most + 1}"
            self._run_plans(name, plans[start : start + self.most], run)
        for number in known:
            one, taken = self.known[number], self._taken[number]
            if kind in _COUNTED:
                seen, total = self.shown.get(kind, (0, 0))
                if one.total:
                    self.shown[kind] = (seen + one.shown(taken), total + one.total)
            if len(taken) < len(one.values) and one.input not in self.rejected[kind]:
                self.rejected[kind].append(one.input)

    def _together(self, known: list[int]) -> list[_Plan]:
        longest = max(len(self.known[number].values) for number in known)
        return [
            [(number, row) for number in known if row < len(self.known[number].values)]
            for row in range(longest)
        ]

    def _one_by_one(self, known: list[int]) -> list[_Plan]:
        return [
            [(number, value)] for number in known for value in range(len(self.known[number].values))
        ]

    def _run_combined(self, run: Run) -> None:
        """Run rows in which every place may hold any value that the model takes."""
        random = np.random.default_rng(0)
        choices: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for number, one in enumerate(self.known):
            taken = range(len(one.values)) if one.kind == SPLITS else self._taken[number]
            choices[one.input, one.place] += [(number, value) for value in sorted(taken)]
        places = [found for found in choices.values() if len(found) > 1]
        if len(choices) < 2 or not places:
            return
        count = min(_COMBINATIONS, self.limit)
        plans: list[_Plan] = [
            [found[random.integers(len(found))] for found in places if random.random() < 0.75]
            for _ in range(count)
        ]
        for start in range(0, count, self.most):
            name = f"combined values {start // self.most + 1}"
            self._run_plans(name, plans[start : start + self.most], run)

    def _run_plans(self, name: str, plans: Sequence[_Plan], run: Run) -> None:
        """Run rows; where the model refuses them, halves of them."""
        try:
            run(name, self._rows(plans))
        except InputRejectedError:
            if len(plans) > 1:
                middle = len(plans) // 2
                self._run_plans(f"{name}a", plans[:middle], run)
                self._run_plans(f"{name}b", plans[middle:], run)
            elif len(plans[0]) == 1:
                one = self.known[plans[0][0][0]]
                self.refused.setdefault(f"{one.kind} in '{one.input}'", self._rows(plans))
            return
        for number, value in (entry for plan in plans for entry in plan):
            self._taken[number].add(value)

    def _rows(self, plans: Sequence[_Plan]) -> dict[str, Array]:
        count = rows_of(self.typical)
        rows = take_rows(self.typical, np.arange(len(plans)) % count)
        for row, plan in enumerate(plans):
            for number, value in plan:
                one = self.known[number]
                rows[one.input].reshape(len(plans), -1)[row, one.place] = one.values[value]
        return rows


_Plan = list[tuple[int, int]]
"""What one row holds: numbers of known values, each with the number of its value."""
