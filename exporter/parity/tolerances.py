"""How far an answer may lie from the reference's: a static part and a measured one.

For an output element with the reference value r,

    budget = absolute · magnitude(position) + floor · magnitude(output) + 4 · noise(position)
             + relative · |r|

where *magnitude* is the largest finite |r| seen at that position (over all rows and cases) or
anywhere in the output, and *noise* is the largest difference between the reference in float32 and
in float64 at that position. Positions are counted without the rows, so a small column beside a
large one has a small budget. Where the model cannot be run in float64 the floor is wider: it has to
cover cancellation, which noise would have shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_client.types import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.interface import Tensor
    from exporter.sources.base import Array

__all__ = ["Tolerance", "measure", "tighter"]

NOISE_FACTOR = 4.0
# Noise beyond this share of an output's magnitude is no rounding, and excuses nothing more.
NOISE_CAP = 1e-2

_STATIC: Mapping[str, tuple[float, float]] = {
    "FP64": (1e-6, 1e-6),
    "FP32": (1e-5, 1e-4),
    "FP16": (2e-3, 2e-3),
    "BF16": (1.6e-2, 1.6e-2),
}
_FLOOR_WITH_NOISE, _FLOOR_WITHOUT = 1e-7, 1e-6
_INVARIANCE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The budget of one output.

    Attributes:
        absolute: Per position, or one number for all where positions vary; float64.
        relative: The factor of the reference's value.
    """

    absolute: Array
    relative: float

    def budget(self, reference: Array) -> Array:
        """Return the budget of every element, in the reference's shape, as float64."""
        allowed = self.absolute + self.relative * np.abs(reference.astype(np.float64))
        return np.maximum(np.broadcast_to(allowed, reference.shape), np.finfo(np.float32).tiny)


def tighter(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance between the reference and itself, rows alone or in company.

    The absolute part stays (it is near 1e-5 of the magnitude already); the relative part shrinks,
    so that a model that mixes rows by 1e-3 is seen.
    """
    return Tolerance(tolerance.absolute, tolerance.relative * _INVARIANCE_SHARE)


def measure(
    output: Tensor, answers: Iterable[Array], noises: Iterable[tuple[Array, Array]]
) -> Tolerance | None:
    """Return the tolerance of an output, or None where elements must be equal.

    Args:
        output: The output.
        answers: The reference's answers, one array per case.
        noises: Pairs of the reference in float32 and in float64.
    """
    if output.datatype not in _STATIC:
        return None
    absolute, relative = _STATIC[output.datatype]
    fixed = bool(output.axes) and all(isinstance(axis, int) for axis in output.axes[1:])
    answers = list(answers)
    position = _largest(answers, fixed=fixed)
    overall = float(np.max(position, initial=0.0))
    pairs = [(low, high) for low, high in noises if low.shape == high.shape]
    noise: Any = np.zeros(())
    if pairs:
        with np.errstate(invalid="ignore"):
            gaps = [np.abs(low.astype(np.float64) - high) for low, high in pairs]
        noise = np.minimum(_largest(gaps, fixed=fixed), NOISE_CAP * overall)
    floor = _FLOOR_WITH_NOISE if pairs else _FLOOR_WITHOUT
    # An output of zeros still needs room for one rounding of what was cancelled.
    least = float(np.finfo(numpy_dtype("FP32")).eps) if overall == 0.0 else 0.0
    return Tolerance(
        np.asarray(absolute * position + floor * overall + NOISE_FACTOR * noise + least), relative
    )


def _largest(arrays: Iterable[Array], *, fixed: bool) -> Array:
    """The largest finite magnitude, per position where the positions are fixed."""
    largest: Array = np.zeros(())
    for array in arrays:
        magnitude = np.abs(array.astype(np.float64))
        magnitude = np.where(np.isfinite(magnitude), magnitude, 0.0)
        found = magnitude.max(axis=0, initial=0.0) if fixed else magnitude.max(initial=0.0)
        largest = np.maximum(largest, found)
    return largest
