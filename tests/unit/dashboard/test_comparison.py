"""A response is compared with the registered model's by the exporter's tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.interface import Tensor
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.tolerances import Tolerance
from stlab_dashboard.inference import compare_with_sample
from stlab_dashboard.registry_reader import Samples

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
SCALAR = np.array(5, np.int64)


@pytest.fixture
def samples() -> Samples:
    case = Case("example", {"x": ROWS})
    answer = ReferenceCase(case, {"y": 2 * ROWS, "n": SCALAR})
    budget = Tolerance(np.full((1, 2), 4e-5), 1e-5, 1e-6, 1e-7, 0.0)
    references = ReferenceSet((answer,), None, {"y": budget, "n": None}, Batching(0), False)
    outputs = (Tensor("y", "FP32", (-1, 2)), Tensor("n", "INT64", ()))
    return Samples(references, outputs)


def test_the_same_and_what_rounding_explains(samples: Samples) -> None:
    for y in (2 * ROWS, np.nextafter(2 * ROWS, np.float32(99))):
        comparison = compare_with_sample(samples, "example", {"y": y, "n": SCALAR})
        assert comparison.mismatch == ""
        assert comparison.margin < 1


def test_a_scalar_comes_with_an_axis(samples: Samples) -> None:
    outputs = {"y": 2 * ROWS, "n": SCALAR[None]}
    assert compare_with_sample(samples, "example", outputs).mismatch == ""


def test_anything_else_is_a_mismatch(samples: Samples) -> None:
    right = {"y": 2 * ROWS, "n": SCALAR}
    changes = {
        "number": {"y": 2 * ROWS + np.float32(0.01)},
        "count": {"n": SCALAR + 1},
        "shape": {"y": 2 * ROWS[:1]},
        "dtype": {"y": (2 * ROWS).astype(np.float64)},
        "nan": {"y": np.full_like(ROWS, np.nan)},
    }
    for name, change in changes.items():
        assert compare_with_sample(samples, "example", {**right, **change}).mismatch, name
    assert compare_with_sample(samples, "example", {"n": SCALAR}).mismatch
