"""Whether rows may be batched: what a row holds, and how many there are, must not count."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from exporter.arrays import Array
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Evidence
from exporter.parity.reference_checks import check_reference
from exporter.parity.reference_set import ReferenceSet
from exporter.sources.base import InputRejectedError, Source
from exporter.sources.known_values import Knowledge

X = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)


def examined(compute: Callable[[Array], Array]) -> ReferenceSet:
    source = SimpleNamespace(
        interface=Interface(
            (Tensor("x", "FP32", ("rows", 3)),), (Tensor("y", "FP32", ("rows", 3)),)
        ),
        example={"x": X},
        frozen_axes=(),
        batching_blocker="",
        has_thresholds=False,
        operators=frozenset(),
        sizes_beyond={},
        knowledge=Knowledge(),
        run=lambda inputs: {"y": compute(inputs["x"])},
        run_float64=lambda _: None,
    )
    return check_reference(cast("Source", source), Evidence(), max_batch_size=16, batching="auto")


def rows_of_cases(references: ReferenceSet) -> set[int]:
    return {len(answer.case.inputs["x"]) for answer in references.cases}


def test_rows_of_their_own_are_batched_and_only_a_few_are_kept() -> None:
    references = examined(lambda x: np.tanh(x * 2))
    assert references.batching.max_batch_size == 16
    assert references.batch is not None
    assert rows_of_cases(references) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (lambda x: x - x.mean(0) if x.max() > 50 else x, "large values"),
        (lambda x: x - x.mean(0) if x.min() < -50 else x, "large values"),
        (lambda x: x * 0 if np.isnan(x).any() else x, "NaN"),
    ],
)
def test_a_row_far_from_the_example_shows_what_no_usual_one_does(compute: Any, why: str) -> None:
    references = examined(compute)
    assert references.batching.max_batch_size == 0
    assert why in references.batching.reason
    assert 16 in rows_of_cases(references), "as many come in one request"


def test_every_number_of_rows_is_asked_for_and_the_odd_one_is_proven() -> None:
    references = examined(lambda x: x * 0 if len(x) == 11 else x)
    assert "11 of the rows" in references.batching.reason
    assert rows_of_cases(references) == {1, 2, 3, 4, 11, 16}


def test_a_row_that_the_model_refuses_says_nothing_of_the_others() -> None:
    def checked(x: Array) -> Array:
        if not np.isfinite(x).all() or np.abs(x).max() > 100:
            raise InputRejectedError("out of range")
        return x

    assert examined(checked).batching.max_batch_size == 16


def test_a_batch_that_is_refused_leaves_no_other_number_of_rows() -> None:
    def few(x: Array) -> Array:
        if len(x) > 7:
            raise InputRejectedError("at most 7")
        return x

    references = examined(few)
    assert references.batching.rows == 4
    assert rows_of_cases(references) == {4}
