"""An answer beside the registry model's: the exporter's budget decides, not the eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.interface import Tensor
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.tolerances import Tolerance
from stlab_dashboard.asking import judge
from stlab_dashboard.sources import Samples

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
SCALAR = np.array(5, np.int64)


@pytest.fixture
def samples() -> Samples:
    case = Case("example", {"x": ROWS})
    answer = ReferenceCase(case, {"y": 2 * ROWS, "n": SCALAR})
    budget = Tolerance(np.full((1, 2), 4e-5), 1e-5, 1e-6, 1e-7, 0.0)
    references = ReferenceSet((answer,), None, {"y": budget, "n": None}, Batching(0), False)
    outputs = (Tensor("y", "FP32", (-1, 2)), Tensor("n", "INT64", ()))
    return Samples("m", 1, references, outputs)


def test_the_same_and_what_rounding_explains(samples: Samples) -> None:
    for answer in (2 * ROWS, np.nextafter(2 * ROWS, np.float32(99))):
        verdict = judge(samples, "example", {"y": answer, "n": SCALAR})
        assert verdict.problem == ""
        assert verdict.margin < 1


def test_a_scalar_comes_with_an_axis(samples: Samples) -> None:
    assert judge(samples, "example", {"y": 2 * ROWS, "n": SCALAR[None]}).problem == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"y": 2 * ROWS + np.float32(0.01), "n": SCALAR},
        {"y": 2 * ROWS, "n": SCALAR + 1},
        {"y": 2 * ROWS[:1], "n": SCALAR},
        {"y": (2 * ROWS).astype(np.float64), "n": SCALAR},
        {"y": np.full_like(ROWS, np.nan), "n": SCALAR},
        {"n": SCALAR},
    ],
    ids=["number", "count", "shape", "dtype", "nan", "missing"],
)
def test_anything_else_is_a_difference(samples: Samples, answer: dict[str, Any]) -> None:
    assert judge(samples, "example", answer).problem
