"""Rows far from the example: what they hold must not reach other rows, and is served as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.parity.hard_values import drops_nan
from exporter.sources.base import Source

__all__ = ["FAR", "comparable_far_rows", "with_far_row"]

FAR: dict[str, Callable[[Any], Any]] = {
    "large values": lambda row: row * 1e3,
    "large negative values": lambda row: -np.abs(row) * 1e3,
    "NaN": lambda row: np.full_like(row, np.nan),
}
"""Values far from the example's that one row may hold, by name."""


def with_far_row(inputs: Arrays, far: Callable[[Array], Array]) -> dict[str, Array]:
    """Return a batch of which the first row is far from the example, in its inputs of numbers."""
    return {name: _with_first(array, far) for name, array in inputs.items()}


def comparable_far_rows(source: Source) -> tuple[str, ...]:
    """Return which of `FAR` a conversion is compared on.

    NaN is left out where an operator drops it, and where the operators are not known, unless it is
    a tree, which decides what a missing number means.
    """
    known = source.has_thresholds or (source.operators and not drops_nan(source.operators))
    return tuple(name for name in FAR if known or name != "NaN")


def _with_first(array: Array, far: Callable[[Array], Array]) -> Array:
    if array.dtype.kind != "f":
        return array
    changed = array.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        changed[0] = far(array[0])
    return changed
