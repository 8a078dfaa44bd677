from __future__ import annotations

import json

import numpy as np

from exporter.interface import Tensor
from exporter.parity.compare import compare
from exporter.parity.evidence import HISTOGRAM_EDGES, Batching, Check, Evidence
from exporter.parity.tolerances import Tolerance

OUTPUT = Tensor("y", "FP32", ("n", 2))
TOLERANCE = Tolerance(np.array(1.0), 0.0)


def measured(*errors: float) -> Evidence:
    evidence = Evidence([OUTPUT])
    for number, error in enumerate(errors):
        zeros = np.zeros((1, 2), np.float32)
        candidate = np.array([[0.0, error]], np.float32)
        evidence.record(f"case {number}", [compare("y", zeros, candidate, TOLERANCE)])
    return evidence


def test_nothing_looked_at_is_not_passed() -> None:
    assert not Evidence().passed
    assert Evidence().summary()["passed"] is False


def test_one_failed_check_fails_and_is_the_reason() -> None:
    evidence = Evidence()
    evidence.add(Check("one", passed=True, detail="fine", cases=3))
    assert evidence.passed
    evidence.add(Check("two", passed=False, detail="off", cases=4))
    evidence.add(Check("three", passed=False, detail="too"))
    assert (evidence.passed, evidence.reason, evidence.cases) == (False, "two: off", 7)


def test_the_worst_case_is_kept() -> None:
    evidence = measured(0.25, -0.75, 0.5)
    worst = evidence.outputs["y"]
    assert (worst.margin, worst.worst_case, worst.worst_index) == (0.75, "case 1", (0, 1))
    assert (evidence.margin, evidence.max_abs_error) == (0.75, 0.75)
    assert worst.elements == sum(worst.histogram) == 6


def test_the_histogram_counts_by_decade() -> None:
    histogram = measured(0.05).outputs["y"].histogram
    assert len(histogram) == len(HISTOGRAM_EDGES) + 1
    assert histogram[0] == 1  # the equal one
    assert histogram[1 + HISTOGRAM_EDGES.index(-2)] == 1


def test_the_first_problem_is_told() -> None:
    evidence = Evidence([OUTPUT])
    zeros = np.zeros((1, 2), np.float32)
    problem = evidence.record("this case", [compare("y", zeros, zeros + 2, TOLERANCE)])
    assert problem.startswith("this case, output 'y': 2 at [0, 0]")
    assert evidence.margin == 2.0


def test_what_is_beyond_all_numbers_is_null_in_json() -> None:
    evidence = Evidence([OUTPUT])
    zeros = np.zeros((1, 2), np.float32)
    evidence.record("case", [compare("y", zeros, zeros * np.nan, TOLERANCE)])
    evidence.add(Check("numbers", passed=False, detail="NaN", margin=evidence.margin))
    written = json.loads(json.dumps(evidence.as_dict(), allow_nan=False))
    assert written["margin"] is None
    assert written["outputs"][0]["margin"] is None
    assert written["checks"][0]["margin"] is None


def test_a_refused_export_never_says_passed() -> None:
    evidence = measured(0.1)
    evidence.add(Check("numbers", passed=True, detail="fine"))
    assert evidence.summary()["passed"] is True
    assert evidence.failed_summary()["passed"] is False


def test_batching_by_name() -> None:
    assert Batching(8).mode == "dynamic"
    assert Batching(0, "why").as_dict() == {"mode": "off", "max_batch_size": 0, "rows": None}
