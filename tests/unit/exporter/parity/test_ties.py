"""Discrete answers at ties mean nothing; elsewhere they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.interface import Interface, Tensor
from exporter.parity.input_generator import Case
from exporter.parity.reference_run import is_tie
from exporter.parity.reference_set import ReferenceCase


class Best:
    """Which column is the largest."""

    interface = Interface(
        (Tensor("x", "FP32", ("rows", 3)),), (Tensor("best", "INT64", ("rows",)),)
    )

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return {"best": inputs["x"].argmax(1)}


@pytest.mark.parametrize(
    ("rows", "tied"),
    [
        ([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], False),
        ([[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]], True),
        ([[5.0, 5.0, 5.0]], True),
        ([[5.0, 5.001, 4.0]], False),
    ],
)
def test_ties(rows: list[list[float]], tied: bool) -> None:
    x = np.repeat(np.array(rows, np.float32), 8, axis=0)
    answer = ReferenceCase(Case("edge", {"x": x}), Best().run({"x": x}))
    assert is_tie(Best(), answer) is tied  # type: ignore[arg-type]
