"""Tells where a reference's discrete answers mean nothing: at ties, which any rounding breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.sources.base import InputRejectedError

if TYPE_CHECKING:
    from exporter.arrays import Array
    from exporter.parity.reference_set import ReferenceCase
    from exporter.sources.base import Source

__all__ = ["is_tie"]

_SEED = 1


def is_tie(source: Source, answer: ReferenceCase) -> bool:
    """Whether a whole number or truth value of an answer changes with its inputs' last digit.

    Among equal values, which one is the largest is chosen by the order of a loop.
    """
    discrete = [t.name for t in source.interface.outputs if not t.datatype.startswith(("FP", "BF"))]
    if not discrete or not any(a.dtype.kind == "f" for a in answer.case.inputs.values()):
        return False
    random = np.random.default_rng(_SEED)
    try:
        moved = source.run({n: _moved(a, random) for n, a in answer.case.inputs.items()})
    except InputRejectedError:
        return True
    return any(not np.array_equal(answer.outputs[name], moved[name]) for name in discrete)


def _moved(array: Array, random: np.random.Generator) -> Array:
    """Move every number by some units in the last place of the largest one."""
    if array.dtype.kind != "f":
        return array
    finite = np.abs(array[np.isfinite(array)])
    step = 4 * np.finfo(array.dtype).eps * max(float(np.max(finite, initial=0.0)), 1e-3)
    moved: Array = (array + random.normal(size=array.shape) * step).astype(array.dtype)
    return moved
