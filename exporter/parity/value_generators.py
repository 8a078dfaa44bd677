"""Generates the values of one input, from its example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.arrays import Array
from exporter.interface import Tensor
from triton_client.types import numpy_dtype

__all__ = ["DIVERSITY_LEVELS", "EDGES", "differ", "edge", "is_code", "random_values"]

# A float input with at most so many distinct values, all whole, is a code and not a quantity.
FEW_VALUES = 16
DIVERSITY_LEVELS = 4
"""How far discrete values may leave the example's rows so that rows differ; see `random_values`."""

Border = Callable[[Any, Any], Any]
EDGES: dict[str, Border] = {
    "zero": lambda low, _high: np.zeros_like(low),
    "low": lambda low, _high: low,
    "high": lambda _low, high: high,
    "negative": lambda low, high: -np.maximum(np.abs(low), np.abs(high)),
}
"""Edge values by name, from the example's lowest and highest values."""


def random_values(
    tensor: Tensor,
    shape: tuple[int, ...],
    example: Array | None,
    random: np.random.Generator,
    diversity_level: int = 0,
) -> Array:
    """Return values for one input.

    Numbers are spread over the example's range at each position. Whole numbers, truth values and
    strings often are codes, indices or masks, of which not every combination makes sense: whole
    rows of the example are chosen. Where those are all equal, a higher diversity level replaces
    some values: by others of the example (1), by their successors (2), their predecessors (3).
    """
    dtype = numpy_dtype(tensor.datatype)
    if dtype.kind in "biuO" or (example is not None and is_code(example)):
        drawn = _rows(shape, example, dtype, random)
        for step in range(1, diversity_level + 1):
            if differ(drawn):
                break
            drawn = _varied(drawn, example, random, step)
        return drawn
    low, high = _range(example, shape, dtype)
    # Half of the values spread over the example's range, half gather around its middle.
    wide = random.uniform(low, high, shape)
    near = random.normal((low + high) / 2, (high - low) / 6, shape)
    return np.where(random.random(shape) < 0.5, wide, near).astype(dtype)


def edge(
    tensor: Tensor,
    shape: tuple[int, ...],
    example: Array | None,
    random: np.random.Generator,
    border: Border,
) -> Array:
    """Return edge values; see `EDGES`.

    Whole numbers, truth values and strings have none: rows of the example are chosen.
    """
    dtype = numpy_dtype(tensor.datatype)
    if dtype.kind in "biuO":
        return _rows(shape, example, dtype, random)
    values: Array = np.broadcast_to(border(*_range(example, shape, dtype)), shape).astype(dtype)
    return values


def differ(array: Array) -> bool:
    """Whether any two rows differ; nothing that could differ counts as well."""
    if array.size == 0 or array.shape[:1] == (1,):
        return True
    if array.dtype.kind == "O":
        return len({tuple(row.ravel().tolist()) for row in np.atleast_2d(array.T).T}) > 1
    return bool((array != array[:1]).any())


def _rows(
    shape: tuple[int, ...], example: Array | None, dtype: np.dtype[Any], random: np.random.Generator
) -> Array:
    """Whole rows of the example where its positions match, else any of its values."""
    if example is None or example.size == 0:
        values = np.array([b"a", b""], dtype=object) if dtype.kind == "O" else np.arange(2)
        return random.choice(values, shape).astype(dtype)
    if example.ndim == len(shape) > 0 and example.shape[1:] == shape[1:]:
        return example[random.integers(0, example.shape[0], shape[0])].astype(dtype)
    return random.choice(example.ravel(), shape).astype(dtype)


def _varied(array: Array, example: Array | None, random: np.random.Generator, step: int) -> Array:
    """Replace a quarter of the values, and at least one of every other row."""
    replaced = random.random(array.shape) < 0.25
    flat = replaced.reshape(len(array), -1)
    every_other = np.arange(0, len(array), 2)
    flat[every_other, random.integers(0, flat.shape[1], every_other.size)] = True
    if array.dtype.kind == "b":
        other: Array = ~array
    elif step == 1 or array.dtype.kind == "O":
        values = array.ravel() if example is None else example.ravel()
        other = random.choice(values, array.shape).astype(array.dtype)
    else:
        other = array + array.dtype.type(1) if step == 2 else array - array.dtype.type(1)
    return np.where(replaced, other, array).astype(array.dtype)


def is_code(example: Array) -> bool:
    """Whether numbers have few values, all whole: codes rather than quantities."""
    if example.size == 0:
        return False
    values = np.unique(example[np.isfinite(example)])
    return 2 <= values.size <= FEW_VALUES and bool(np.all(values == np.round(values)))


def _range(
    example: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """The example's range, slightly extended, by position where the shapes match."""
    if example is None or not np.isfinite(example).any():
        return np.array(-1.0), np.array(1.0)
    most = float(np.finfo(dtype if dtype.kind == "f" else np.float32).max) / 4
    finite = np.isfinite(example)
    values = np.clip(np.where(finite, example, 0).astype(np.float64), -most, most)
    seen = values[finite]
    lowest, highest = float(seen.min()), float(seen.max())
    low, high = np.array(lowest), np.array(highest)
    if example.ndim == len(shape) > 0 and example.shape[1:] == shape[1:]:
        low = np.where(finite, values, np.inf).min(axis=0)
        high = np.where(finite, values, -np.inf).max(axis=0)
        none = ~finite.any(axis=0)
        low, high = np.where(none, lowest, low), np.where(none, highest, high)
    spread = high - low
    # A constant position has a range of its own size, a zero that of the others.
    alone = np.where(low != 0, np.abs(low), (highest - lowest) / 2 or 1.0)
    reach = np.where(spread > 0, 0.1 * spread, alone)
    return np.clip(low - reach, -most, most), np.clip(high + reach, -most, most)
