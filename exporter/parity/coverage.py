"""How much of a model the proof exercised, and whether that makes its evidence strong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from exporter.arrays import Array
from exporter.errors import first_line
from exporter.parity.reference_set import ReferenceCase
from exporter.sources.base import Source
from exporter.sources.known_values import Counts

__all__ = ["measure_coverage", "weaknesses"]

# The least share of each kind in strong evidence. Rows of embeddings are not listed: what is read
# of a table says nothing about the rest of the model.
_LEAST: Mapping[str, float] = {
    "classes": 0.6, "categories": 0.9, "words": 0.9, "leaves": 0.2, "units": 0.2,
}  # fmt: skip
_FEW_CASES = 4


def measure_coverage(
    source: Source, cases: Sequence[ReferenceCase], shown: Counts, notes: list[str]
) -> Counts:
    """Return how much of a model some cases exercise, by kind: how much was seen and there is.

    Args:
        source: The reference.
        cases: Cases that it answered.
        shown: What is counted already.
        notes: Gets a sentence where parts of the model could not be counted.
    """
    found = dict(shown)
    knowledge = source.knowledge
    for output, classes in knowledge.classes.items():
        seen = _values(cases, output)
        known = {_key(value) for value in np.asarray(classes).ravel().tolist()}
        before = found.get("classes", (0, 0))
        found["classes"] = (before[0] + len(seen & known), before[1] + len(known))
    try:
        found |= knowledge.exercised([case.inputs for case in cases])
    except Exception as error:  # noqa: BLE001 - whatever a library raises that looks into a model
        notes.append(f"Parts of the model could not be counted: {first_line(error)}")
    return found


def weaknesses(
    source: Source,
    cases: Sequence[ReferenceCase],
    coverage: Counts,
    *,
    samples: bool,
) -> Iterator[str]:
    """Yield why evidence is weak, each with what to do.

    Args:
        source: The reference.
        cases: Every case that the candidate is compared on.
        coverage: See `measure_coverage`.
        samples: Whether the user gave samples.
    """
    if source.example is None and not samples:
        yield (
            "The version has no input example, so inputs were generated without knowing what is "
            "typical. Log it with an input_example, or give --samples FILE.npz."
        )
    for kind, least in _LEAST.items():
        seen, known = coverage.get(kind, (0, 0))
        needed = max(least * known, min(known, 2)) if kind == "classes" else least * known
        if seen < needed:
            yield (
                f"The comparisons cover {seen} of {known} {kind}. Give inputs that reach more of "
                "them with --samples FILE.npz."
            )
    if sum(len(next(iter(case.inputs.values()), ())) for case in cases) < _FEW_CASES:
        return
    for tensor in source.interface.outputs:
        if "classes" not in coverage and len(_values(cases, tensor.name)) < 2:
            yield (
                f"Every answer of '{tensor.name}' is the same. Log an input_example of rows with "
                "different answers, or give some with --samples FILE.npz."
            )


def _values(cases: Sequence[ReferenceCase], output: str) -> set[object]:
    """Return the different values of an output in all cases."""
    found: set[object] = set()
    for case in cases:
        found.update(_key(value) for value in np.unique(_sortable(case.outputs[output])).tolist())
    return found


def _sortable(array: Array) -> Array:
    if array.dtype.kind != "O":
        # NaN is what many models answer to it.
        return array[~np.isnan(array)] if array.dtype.kind == "f" else array.ravel()
    return np.array([_key(value) for value in array.ravel().tolist()], dtype=object)


def _key(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
