"""Values that a model treats in a way of their own, which its example need not show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.arrays import Array, Arrays

__all__ = [
    "CATEGORIES",
    "INDICES",
    "LIMITS",
    "MISSING",
    "SPLITS",
    "UNKNOWN",
    "WORDS",
    "Counts",
    "Knowledge",
    "KnownValues",
]

CATEGORIES, WORDS, INDICES = "categories", "words", "indices"
"""Kinds of values that a model was fitted to, which coverage counts."""
UNKNOWN, MISSING, LIMITS = "unknown values", "missing values", "limits"
"""Kinds of values that a model may refuse."""
SPLITS = "splits"
"""Values on both sides of a tree's thresholds, which say something in combination only."""

Counts = Mapping[str, tuple[int, int]]
"""What inputs exercised of a model: by kind, how much was seen and how much there is."""


@dataclass(frozen=True, slots=True)
class KnownValues:
    """Values for one place in every row of an input.

    Attributes:
        input: The input's name.
        place: The position in a row, counted in the order of its elements.
        kind: One of the kinds of this module.
        values: The values, as the input holds them: numbers, truth values or bytes.
        counts: How much of what the model knows each value shows; empty for one each.
        known: How much there is; 0 for as much as the values show together.
    """

    input: str
    place: int
    kind: str
    values: Sequence[Any]
    counts: Sequence[int] = ()
    known: int = 0

    @property
    def total(self) -> int:
        """How much the model knows of this kind."""
        return self.known or self.shown(range(len(self.values)))

    def shown(self, numbers: Iterable[int]) -> int:
        """Return how much the values of these numbers show."""
        return sum(self.counts[number] if self.counts else 1 for number in numbers)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a model knows of its inputs and outputs.

    Attributes:
        values: Values that it treats in a way of their own.
        classes: The values that an output may have, by output.
        exercised: Returns how much of the model's inside some inputs exercise.
    """

    values: Sequence[KnownValues] = ()
    classes: Mapping[str, Array] = field(default_factory=dict)
    exercised: Callable[[Sequence[Arrays]], Counts] = lambda _inputs: {}
