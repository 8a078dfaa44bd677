"""The tolerance between candidate and reference: a static part and a measured one.

For an output element with the reference value r,

    budget = max(typical, own) + relative · |r|
    typical = share · scale(position) + floor · scale(output) + 4 · noise(position)
    own = share · magnitude(position) + floor · magnitude(output)

where *magnitude* is the largest finite |r| in the same output, at that position (over all rows) or
anywhere. *scale* is the same over typical inputs (not edge values, not the user's samples), but at
most eight times the geometric mean, so that one huge value does not excuse wrong small ones.
*noise* is the largest difference between the reference in float32 and in float64 at that position.
Positions do not include the rows, so a small column next to a large one has a small budget. Where
the model cannot run in float64 the floor is wider: it has to cover cancellation, which noise would
have shown.

In a lower precision (``--precision``) *share* and *relative* are the error of that precision that
is accepted: 0.5 % each in fp16, 4 % each in int8. So an output's largest values may be off by 1 %
or 8 %, and those near zero by half as much of the magnitude. *scale* is that of the values that a
lower precision rounds alike: for outputs between 0 and 1 that exceed one half, such as
probabilities and masks, all positions together; for an output of several axes besides the rows, the
smallest of the scales along each of these axes, so that a feature has its own and a pixel has not.
A column of a table still has its own.

There the class counts as well. Where the last axis of an output has a fixed size, the position of
the largest element must be the reference's in all rows but 1 % (fp16) or 3 % (int8), rounded up to
whole rows; rows in which the reference's two largest elements are within each other's budget do not
count. Whole numbers, truth values and strings, which often are such a class, may differ in as many
elements; in the model's own precision they must be equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporter.arrays import Array
from exporter.interface import Tensor
from triton_client.types import numpy_dtype

__all__ = [
    "OWN_PRECISION",
    "Tolerance",
    "batch_invariance_tolerance",
    "determinism_tolerance",
    "measure",
]

NOISE_FACTOR = 4.0
# Noise beyond this share of an output's magnitude is no rounding, and excuses nothing more.
NOISE_CAP = 1e-2
# The largest of some thousand normally distributed values is eight times their geometric mean.
USUAL_FACTOR = 8.0

_STATIC: Mapping[str, tuple[float, float]] = {
    "FP64": (1e-6, 1e-6),
    "FP32": (1e-5, 1e-4),
    "FP16": (2e-3, 2e-3),
    "BF16": (1.6e-2, 1.6e-2),
}
_FLOOR_WITH_NOISE, _FLOOR_WITHOUT = 1e-7, 1e-6
_INVARIANCE_SHARE = 0.1

OWN_PRECISION = "fp32"
# Share and relative factor, and the least part of rows with the same class.
_LOWER: Mapping[str, tuple[float, float]] = {"fp16": (5e-3, 0.99), "int8": (4e-2, 0.97)}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The budget of one output.

    Attributes:
        typical: Per position, with one element for rows and for every other axis that varies;
            float64.
        relative: The factor of the reference's value.
        share: The factor of the magnitude at a position of the same answer.
        floor: The factor of the magnitude of the same answer.
        agreement: The least part of rows in which the largest element of the last axis is the same
            one, or of whole numbers, truth values and strings that are equal; 0 for no minimum.
    """

    typical: Array
    relative: float
    share: float = 0.0
    floor: float = 0.0
    agreement: float = 0.0

    def budget(self, reference: Array) -> Array:
        """Return the budget of every element, in the reference's shape, as float64."""
        values = np.abs(reference.astype(np.float64))
        axes = tuple(axis for axis, size in enumerate(self.typical.shape) if size == 1)
        position = values.max(axis=axes, keepdims=True, initial=0.0)
        own = self.share * position + self.floor * np.max(position, initial=0.0)
        allowed = np.maximum(self.typical, own) + self.relative * values
        budget: Array = np.maximum(allowed, np.finfo(np.float32).tiny)
        return np.broadcast_to(budget, values.shape)


def batch_invariance_tolerance(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance between rows alone and in a batch, both of the reference.

    The absolute part stays (it is near 1e-5 of the magnitude already); the relative part shrinks,
    so that a model that mixes rows by 1e-3 is detected.
    """
    return replace(tolerance, relative=tolerance.relative * _INVARIANCE_SHARE)


def determinism_tolerance(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance between two runs of the reference on the same input."""
    t = tolerance
    return Tolerance(t.typical / 100, t.relative / 100, share=t.share / 100, floor=t.floor / 100)


def measure(
    output: Tensor,
    answers: Iterable[Array],
    noises: Iterable[tuple[Array, Array]],
    precision: str = OWN_PRECISION,
) -> Tolerance | None:
    """Return the tolerance of an output, or None where elements must be equal.

    *answers* has the reference's outputs on typical inputs, one array per case; *noises* has pairs
    of them in float32 and in float64.
    """
    lower, agreement = _LOWER.get(precision, (0.0, 0.0))
    if output.datatype not in _STATIC:
        return Tolerance(np.zeros(()), 0.0, agreement=agreement) if lower else None
    share, relative = (max(factor, lower) for factor in _STATIC[output.datatype])
    answers = list(answers)
    # Positions are counted without the rows, and without other axes that vary.
    axes = tuple(i for i, axis in enumerate(output.axes) if i == 0 or isinstance(axis, str))
    position = _scale(answers, axes)
    overall = float(np.max(position, initial=0.0))
    pairs = [(low, high) for low, high in noises if low.shape == high.shape]
    noise: Any = np.zeros(())
    for low, high in pairs:
        with np.errstate(invalid="ignore"):
            gap = _magnitudes(low.astype(np.float64) - high)
        noise = np.maximum(noise, gap.max(axis=axes, keepdims=True, initial=0.0))
    noise = np.minimum(noise, NOISE_CAP * overall)
    floor = _FLOOR_WITH_NOISE if pairs else _FLOOR_WITHOUT
    # An output of zeros still needs room for one rounding of what was cancelled.
    least = float(np.finfo(numpy_dtype("FP32")).eps) if overall == 0.0 else 0.0
    if lower:
        position = _as_one_quantity(answers, position)
        agreement = agreement if _has_classes(output) else 0.0
    typical = share * position + floor * overall + NOISE_FACTOR * noise + least
    return Tolerance(np.asarray(typical), relative, share, floor, agreement)


def _has_classes(output: Tensor) -> bool:
    size = output.axes[-1] if len(output.axes) > 1 else 1
    return isinstance(size, int) and size > 1


def _as_one_quantity(answers: Iterable[Array], position: Array) -> Array:
    """The scale of the values that a lower precision rounds alike, for every position."""
    if largest := _largest_share(answers):
        return np.full_like(position, largest)
    axes = [axis for axis, size in enumerate(position.shape) if size > 1]
    if len(axes) < 2:
        return position
    smallest: Array = np.full_like(position, np.inf)
    for axis in axes:
        others = tuple(other for other in axes if other != axis)
        smallest = np.minimum(smallest, position.max(axis=others, keepdims=True))
    return smallest


def _largest_share(answers: Iterable[Array]) -> float:
    """The largest of outputs between 0 and 1; 0 where they are other quantities, or all small."""
    finite = [answer[np.isfinite(answer)] for answer in answers]
    largest = max((float(np.max(values, initial=0.0)) for values in finite), default=0.0)
    # A sum of probabilities may be rounded up to more than one.
    shares = 0.5 < largest <= 1.0 + 1e-3 and all((values >= 0.0).all() for values in finite)
    return largest if shares else 0.0


def _scale(answers: Iterable[Array], axes: tuple[int, ...]) -> Array:
    """The usual magnitude, per position."""
    largest: Array = np.zeros(())
    logs: Array = np.zeros(())
    count: Array = np.zeros(())
    for answer in answers:
        magnitudes = _magnitudes(answer)
        seen = magnitudes > 0
        largest = np.maximum(largest, magnitudes.max(axis=axes, keepdims=True, initial=0.0))
        powers = np.log(magnitudes, where=seen, out=np.zeros(magnitudes.shape))
        logs = logs + powers.sum(axis=axes, keepdims=True)
        count = count + seen.sum(axis=axes, keepdims=True)
    return np.minimum(largest, USUAL_FACTOR * np.exp(logs / np.maximum(count, 1)))


def _magnitudes(array: Array) -> Array:
    """The finite magnitudes, with zeros in place of the others."""
    values = np.abs(array.astype(np.float64))
    return np.where(np.isfinite(values), values, 0.0)
