"""Compares a candidate's outputs with the reference's, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.interface import Tensor
from exporter.parity.tolerances import Tolerance

__all__ = ["Difference", "compare", "compare_outputs"]

# Elements that have a budget; bfloat16 is numpy's "V".
_NUMBERS = frozenset("fV")


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output differs from the reference's.

    Attributes:
        problem: Why it fails; empty where it passes.
        margin: The worst error divided by its budget; below 1 passes.
        max_abs_error: The largest abs(candidate - reference).
        index: The worst element.
        ratios: Every element's error divided by its budget, flat, for the histogram.
        flips: Elements that must be equal and differ, within the reference's own noise.
        agreement: The least part of rows that must agree; 0 for no minimum.
        rows: The rows that count, or elements of whole numbers, truth values and strings.
        mismatches: Those that do not agree.
    """

    output: str
    problem: str = ""
    margin: float = 0.0
    max_abs_error: float = 0.0
    index: tuple[int, ...] = ()
    ratios: Array | None = None
    flips: int = 0
    agreement: float = 0.0
    rows: int = 0
    mismatches: int = 0


def compare_outputs(
    outputs: tuple[Tensor, ...],
    reference: Arrays,
    candidate: Arrays,
    tolerances: Mapping[str, Tolerance | None],
    float64: Arrays | None = None,
) -> list[Difference]:
    """Compare every output; a missing one is a difference."""
    differences = []
    for tensor in outputs:
        name = tensor.name
        if name in candidate:
            exact = None if float64 is None else float64.get(name)
            found = compare(name, reference[name], candidate[name], tolerances[name], exact)
        else:
            others = ", ".join(sorted(candidate)) or "none"
            found = Difference(name, f"the output is missing (there are: {others})", np.inf)
        differences.append(found)
    return differences


def compare(
    name: str,
    reference: Array,
    candidate: Array,
    tolerance: Tolerance | None,
    float64: Array | None = None,
) -> Difference:
    """Compare one output.

    Without a tolerance every element must be equal, but for flips to the reference in float64.
    """
    if candidate.dtype != reference.dtype:
        return Difference(name, f"dtype {candidate.dtype}, expected {reference.dtype}", np.inf)
    if candidate.shape != reference.shape:
        shapes = f"shape {list(candidate.shape)}, expected {list(reference.shape)}"
        return Difference(name, shapes, np.inf)
    if reference.size == 0:
        return Difference(name)
    if tolerance is None or reference.dtype.kind not in _NUMBERS:
        agreement = 0.0 if tolerance is None else tolerance.agreement
        return _equal(name, reference, candidate, float64, agreement)
    for what, test in (("NaN", np.isnan), ("+Inf", np.isposinf), ("-Inf", np.isneginf)):
        expected, found = test(reference), test(candidate)
        if (wrong := expected != found).any():
            index = _first(wrong)
            has = "a number" if expected[index] else what
            problem = (
                f"{has} at {list(index)} where the reference has "
                f"{what if expected[index] else 'none'} ({int(wrong.sum())} elements differ so)"
            )
            return Difference(name, problem, np.inf, index=index)
    return _close(name, reference, candidate, tolerance)


def _equal(
    name: str, reference: Array, candidate: Array, float64: Array | None, agreement: float
) -> Difference:
    wrong = np.asarray(reference != candidate)
    flips = 0
    if float64 is not None and float64.shape == reference.shape:
        within = wrong & np.asarray(float64 == candidate)
        flips = int(within.sum())
        wrong = wrong & ~within
    count = int(wrong.sum())
    if agreement:
        return Difference(
            name, flips=flips, agreement=agreement, rows=reference.size, mismatches=count
        )
    if not count:
        return Difference(name, flips=flips)
    index = _first(wrong)
    problem = (
        f"{candidate[index]!r} at {list(index)}, expected {reference[index]!r} "
        f"({count} of {wrong.size} elements differ)"
    )
    return Difference(name, problem, np.inf, index=index, flips=flips)


def _close(name: str, reference: Array, candidate: Array, tolerance: Tolerance) -> Difference:
    finite = np.isfinite(reference)
    wide, other = reference.astype(np.float64), candidate.astype(np.float64)
    error = np.abs(np.subtract(other, wide, where=finite, out=np.zeros(reference.shape)))
    budget = tolerance.budget(np.where(finite, wide, 0.0))
    ratios = error / budget
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratios)), ratios.shape))
    margin = float(ratios[index])
    problem = ""
    if margin >= 1.0:
        beyond = int((ratios >= 1.0).sum())
        problem = (
            f"{candidate[index]:.7g} at {list(index)}, expected {reference[index]:.7g} "
            f"± {budget[index]:.2g} ({beyond} of {ratios.size} elements are out of budget)"
        )
    rows, mismatches = (0, 0)
    if tolerance.agreement and reference.ndim > 1 and reference.shape[-1] > 1:
        left, right = np.where(finite, wide, -np.inf), np.where(finite, other, -np.inf)
        rows, mismatches = _classes(left, right, budget)
    return Difference(
        name,
        problem,
        margin,
        float(error.max()),
        index,
        ratios.ravel(),
        agreement=tolerance.agreement,
        rows=rows,
        mismatches=mismatches,
    )


def _classes(reference: Array, candidate: Array, budget: Array) -> tuple[int, int]:
    """Count the rows with a clear class, and those that the candidate puts into another class."""
    first = np.argmax(reference, axis=-1)[..., None]
    best = np.take_along_axis(reference, first, -1)
    second = np.partition(reference, -2, axis=-1)[..., -2:-1]
    with np.errstate(invalid="ignore"):
        decided = best - second > np.take_along_axis(budget, first, -1)
    mismatches = decided & (np.argmax(candidate, axis=-1)[..., None] != first)
    return int(decided.sum()), int(mismatches.sum())


def _first(mask: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0]) if np.ndim(mask) else ()
