"""What the checks measured, and the verdict: the parity part of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any, TypedDict, get_type_hints

import numpy as np

from exporter.bundle import BatchingEntry, json_number
from exporter.interface import Tensor
from exporter.parity.compare import Difference

__all__ = [
    "HISTOGRAM_EDGES",
    "Batching",
    "Check",
    "Evidence",
    "OutputEvidence",
    "ParitySummary",
    "parity_summary",
]

# The keys of a report, where they are not the field's name.
_REPORT_KEYS = {"mismatches": "others", "repeat_mismatches": "again"}


class ParitySummary(TypedDict):
    """The ``parity`` object of ``--json``; None for a number that is not finite.

    *strength* is ``strong`` or ``weak``, *coverage* has ``{"seen": n, "known": n}`` for every kind
    of thing that the model knows, and *warnings* begins with why the evidence is weak.
    """

    passed: bool
    margin: float | int | None
    max_abs_error: float | int | None
    cases: int
    batching: str
    batching_reason: str
    strength: str
    coverage: dict  # type: ignore[type-arg]
    warnings: list  # type: ignore[type-arg]


HISTOGRAM_EDGES = tuple(range(-8, 3))
"""Decades of error ÷ budget; the first bin holds everything below, exact equality included."""


@dataclass(frozen=True, slots=True)
class Batching:
    """Whether Triton may put rows of different requests together.

    Attributes:
        max_batch_size: The most rows in one request; 0 for no batching.
        reason: Why not; empty where it may.
        rows: The fixed size of the leading axis, or None.
    """

    max_batch_size: int
    reason: str = ""
    rows: int | None = None

    @property
    def mode(self) -> str:
        """``dynamic`` or ``off``."""
        return "dynamic" if self.max_batch_size else "off"

    def as_dict(self) -> BatchingEntry:
        """Return the batching as the manifest holds it."""
        return {"mode": self.mode, "max_batch_size": self.max_batch_size, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check: what was found, and the worst error ÷ budget of all comparisons."""

    name: str
    passed: bool
    detail: str
    cases: int = 0
    margin: float | None = None


@dataclass(slots=True)
class OutputEvidence:
    """The worst of one output over all cases.

    In a lower precision it counts the rows with a clear class, and those whose class differs.
    """

    name: str
    datatype: str
    margin: float = 0.0
    max_abs_error: float = 0.0
    worst_case: str = ""
    worst_index: tuple[int, ...] = ()
    flips: int = 0
    rows: int = 0
    mismatches: int = 0
    elements: int = 0
    repeat_mismatches: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * (len(HISTOGRAM_EDGES) + 1))

    def add(self, case: str, difference: Difference) -> None:
        """Take one comparison into account."""
        self.flips += difference.flips
        if difference.ratios is not None:
            self.elements += difference.ratios.size
            logs = np.log10(np.maximum(difference.ratios, 1e-300))
            bins = np.searchsorted(HISTOGRAM_EDGES, logs, side="right")
            counts = np.bincount(bins, minlength=len(self.histogram))
            self.histogram = (counts + self.histogram).tolist()
        if difference.margin >= self.margin:
            self.margin = difference.margin
            self.worst_case, self.worst_index = case, difference.index
        self.max_abs_error = max(self.max_abs_error, difference.max_abs_error)

    def agree(self, difference: Difference, *, times: int) -> str:
        """Count the rows of one comparison; return why too few agree. See `Evidence.record`."""
        if not difference.rows:
            return ""
        if not times:
            self.rows += difference.rows
            self.mismatches += difference.mismatches
        rows, mismatches = self.rows, self.mismatches
        allowed = ceil(round((1.0 - difference.agreement) * rows, 9))
        if times:
            # Each allowed mismatch may recur in each repetition.
            self.repeat_mismatches += difference.mismatches
            rows, mismatches, allowed = times * rows, self.repeat_mismatches, times * allowed
        else:
            self.margin = max(self.margin, mismatches / (allowed + 1))
        if mismatches <= allowed:
            return ""
        return f"{mismatches} of {rows} rows are of another class, {allowed} may be"


# What reports of earlier releases lack, which measured no coverage.
_UNMEASURED: Mapping[str, Any] = {
    "strength": "weak",
    "coverage": {},
    "warnings": [
        "A release of stlab that measured no coverage proved this bundle.",
    ],
}


def parity_summary(parity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``parity`` object of ``--json`` from that of a report."""
    kinds = get_type_hints(ParitySummary)
    parity = {**_UNMEASURED, **parity}
    for key, kind in kinds.items():
        if not isinstance(parity[key], kind):
            raise TypeError(f"its {key} is a {type(parity[key]).__name__}")
    return {key: parity[key] for key in kinds}


class Evidence:
    """Collects checks and comparisons on their way to a verdict."""

    def __init__(self, outputs: Iterable[Tensor] = ()) -> None:
        self.checks: list[Check] = []
        self.outputs: dict[str, OutputEvidence] = {}
        self.expect(outputs)
        self.notes: list[str] = []
        self.precision: dict[str, Any] = {}
        self.batching = Batching(0, "not examined")
        self.coverage: dict[str, tuple[int, int]] = {}
        # None until coverage is measured.
        self.weaknesses: list[str] | None = None
        self.warnings: list[str] = []

    def expect(self, outputs: Iterable[Tensor]) -> None:
        """Name the outputs that will be compared."""
        self.outputs = {t.name: OutputEvidence(t.name, t.datatype) for t in outputs}

    @property
    def passed(self) -> bool:
        """Whether every check held (and there was one)."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """What failed first; empty where nothing did."""
        return next((f"{c.name}: {c.detail}" for c in self.checks if not c.passed), "")

    @property
    def margin(self) -> float:
        """The worst error ÷ budget of all comparisons with the candidate."""
        return max((output.margin for output in self.outputs.values()), default=0.0)

    @property
    def max_abs_error(self) -> float:
        """The largest abs(candidate - reference)."""
        return max((output.max_abs_error for output in self.outputs.values()), default=0.0)

    @property
    def cases(self) -> int:
        """How many cases were compared with the reference."""
        return sum(check.cases for check in self.checks)

    def add(self, check: Check) -> Check:
        """Record a check."""
        self.checks.append(check)
        return check

    def record(self, case: str, differences: Iterable[Difference], *, times: int = 0) -> str:
        """Record the comparison of one case, and return the first problem, or nothing.

        *times* is how often rows are repeated that were compared before; 0 for new ones.
        """
        problem = ""
        for difference in differences:
            output = self.outputs[difference.output]
            output.add(case, difference)
            found = difference.problem or output.agree(difference, times=times)
            if found and not problem:
                problem = f"{case}, output '{difference.output}': {found}"
        return problem

    def state(self) -> dict[str, Any]:
        """Return what was recorded so far as plain data, without comparisons."""
        return {
            "checks": [_finite(asdict(check)) for check in self.checks],
            "notes": self.notes,
            "precision": self.precision,
            "batching": asdict(self.batching),
            "coverage": {kind: list(counts) for kind, counts in self.coverage.items()},
            "weaknesses": self.weaknesses,
            "warnings": self.warnings,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what another process recorded; see `state`."""
        self.checks = [Check(**check) for check in state["checks"]]
        self.notes = list(state["notes"])
        self.precision = dict(state["precision"])
        self.batching = Batching(**state["batching"])
        self.coverage = {kind: (seen, known) for kind, (seen, known) in state["coverage"].items()}
        self.weaknesses = state["weaknesses"]
        self.warnings = list(state["warnings"])

    def summary(self) -> ParitySummary:
        """Return the ``parity`` object of ``--json``."""
        return {
            "passed": self.passed,
            "margin": json_number(self.margin),
            "max_abs_error": json_number(self.max_abs_error),
            "cases": self.cases,
            "batching": self.batching.mode,
            "batching_reason": self.batching.reason,
            "strength": "strong" if self.weaknesses == [] else "weak",
            "coverage": {
                kind: {"seen": seen, "known": known}
                for kind, (seen, known) in sorted(self.coverage.items())
            },
            "warnings": [*(self.weaknesses or ()), *self.warnings],
        }

    def failed_summary(self) -> ParitySummary:
        """Return the ``parity`` object of a rejected export."""
        return {**self.summary(), "passed": False}

    def as_dict(self) -> Mapping[str, Any]:
        """Return everything, as report.json holds it."""
        return {
            **self.summary(),
            "reason": self.reason,
            "max_batch_size": self.batching.max_batch_size,
            "checks": [_finite(asdict(check)) for check in self.checks],
            "outputs": [_finite(asdict(output)) for output in self.outputs.values()],
            "histogram_edges": list(HISTOGRAM_EDGES),
            "notes": self.notes,
            "precision": self.precision,
        }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {
        _REPORT_KEYS.get(key, key): json_number(value) if isinstance(value, float) else value
        for key, value in record.items()
    }
