"""Finds rows whose answers no conversion can be compared with, since rounding decides them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.parity.hard_values import drops_nan
from exporter.parity.input_generator import rows_of
from exporter.parity.reference_set import ReferenceCase
from exporter.parity.tolerances import Tolerance
from exporter.sources.base import InputRejectedError, Source

__all__ = ["unsteady_rows"]

# The reference's own rounding may take this share of a budget.
SHARE = 0.25


def unsteady_rows(
    source: Source, case: ReferenceCase, tolerances: Mapping[str, Tolerance | None]
) -> Array:
    """Return which rows of a case the reference's own rounding decides, as bool [rows].

    Those are rows in which its answers in float32 and float64 differ by more than a quarter of the
    budget, or are NaN or infinite in one of them only; where it cannot compute in float64, rows of
    which that holds when every input moves by its last digit. For whole numbers and truth values it
    is rows in which they change when inputs move by the last digit of the row's largest. Rows of
    answers that are not finite count where an operator drops NaN.
    """
    count = rows_of(case.inputs)
    unsteady: Array = np.zeros(count, dtype=bool)
    # What a NaN becomes in such an operator does not show in every output; the largest number that
    # nan_to_num makes of infinity overflows again in what follows, in the order of a loop.
    keeps_nan = not drops_nan(source.operators) and "aten.nan_to_num" not in source.operators
    exact, discrete = case.float64, None
    if exact is None:
        exact = _run(source, _moved(case.inputs, alone=True))
    if None in tolerances.values():
        discrete = _run(source, _moved(case.inputs, alone=False))
    for tensor in source.interface.outputs:
        low, name = case.outputs[tensor.name], tensor.name
        tolerance = tolerances[name]
        other = discrete if tolerance is None else exact
        if other is None or other[name].shape != low.shape:
            unsteady |= True
            continue
        if tolerance is None:
            differ = np.asarray(low != other[name])
        else:
            differ = _beyond(low, other[name], tolerance)
            if not keeps_nan:
                differ |= ~np.isfinite(low)
        whole = low.ndim == 0 or len(low) != count
        unsteady |= differ.any() if whole else differ.reshape(count, -1).any(axis=1)
    return unsteady


def _run(source: Source, inputs: Arrays) -> Arrays | None:
    try:
        return source.run(inputs)
    except InputRejectedError:
        return None


def _beyond(low: Array, high: Array, tolerance: Tolerance) -> Array:
    finite = np.isfinite(low) & np.isfinite(high)
    budget = tolerance.budget(np.where(finite, low, 0.0)) * SHARE
    with np.errstate(invalid="ignore"):
        gap = np.where(finite, np.abs(low.astype(np.float64) - high), 0.0)
    alike = finite | (low == high) | (np.isnan(low) & np.isnan(high))
    return np.asarray(~alike | (gap > budget))


def _moved(inputs: Arrays, *, alone: bool) -> Arrays:
    """Move every number by its own last digits, or by those of its row's largest."""
    random = np.random.default_rng(1)
    return {name: _array_moved(array, random, alone=alone) for name, array in inputs.items()}


def _array_moved(array: Array, random: np.random.Generator, *, alone: bool) -> Array:
    if array.dtype.kind != "f" or array.size == 0:
        return array
    size = np.where(np.isfinite(array), np.abs(array.astype(np.float64)), 0.0)
    if not alone:
        axes = tuple(range(1, array.ndim))
        size = np.maximum(size.max(axis=axes, keepdims=True), 1e-3)
    step = 4 * float(np.finfo(array.dtype).eps) * size
    with np.errstate(over="ignore"):
        moved: Array = (array + random.normal(size=array.shape) * step).astype(array.dtype)
    # Adding a zero would take the sign of a zero away.
    return np.where(step == 0.0, array, moved)
