"""Finds ties: inputs at which any rounding changes the reference's discrete outputs."""

from __future__ import annotations

import numpy as np

from exporter.arrays import Array
from exporter.parity.reference_set import ReferenceCase
from exporter.sources.base import InputRejectedError, Source

__all__ = ["is_tie"]

_SEED = 1


def is_tie(source: Source, case: ReferenceCase) -> bool:
    """Whether a whole number or truth value of the outputs changes with the inputs' last digit.

    Which of several equal values is the largest depends on the order of a loop.
    """
    discrete = [t.name for t in source.interface.outputs if not t.datatype.startswith(("FP", "BF"))]
    if not discrete or not any(a.dtype.kind == "f" for a in case.inputs.values()):
        return False
    random = np.random.default_rng(_SEED)
    try:
        moved = source.run({n: _moved(a, random) for n, a in case.inputs.items()})
    except InputRejectedError:
        return True
    return any(not np.array_equal(case.outputs[name], moved[name]) for name in discrete)


def _moved(array: Array, random: np.random.Generator) -> Array:
    """Move every number by some units in the last place of the largest one."""
    if array.dtype.kind != "f":
        return array
    finite = np.abs(array[np.isfinite(array)])
    step = 4 * np.finfo(array.dtype).eps * max(float(np.max(finite, initial=0.0)), 1e-3)
    moved: Array = (array + random.normal(size=array.shape) * step).astype(array.dtype)
    return moved
