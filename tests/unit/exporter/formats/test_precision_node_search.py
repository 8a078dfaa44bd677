"""As few nodes as possible keep float32, found in few attempts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from exporter.formats.precision.evaluator import Verdict
from exporter.formats.precision.node_search import (
    find_float32_nodes,
    float32_note,
    precision_error,
    smallest_sufficient,
)

NODES = tuple(f"node {number}" for number in range(100))


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 63, 64, 99, 100])
def test_the_smallest_number_is_found(needed: int) -> None:
    asked: list[int] = []

    def enough(number: int) -> bool:
        asked.append(number)
        return number >= needed

    assert smallest_sufficient(100, enough) == needed
    assert len(asked) == len(set(asked)) <= 14
    assert set(asked) <= set(range(1, 101))


def test_none_is_enough() -> None:
    assert smallest_sufficient(5, lambda _: False) is None
    assert smallest_sufficient(0, lambda _: True) is None


def verdict(margin: float) -> Verdict:
    return Verdict("out of budget" if margin >= 1 else "", margin, margin / 100)


def test_nothing_is_ranked_where_all_can_be_reduced() -> None:
    def rank() -> Sequence[str]:
        raise AssertionError

    found = find_float32_nodes(lambda kept: verdict(0.5), rank, lambda kept: True)
    assert (found.kept, found.verdict.margin) == ((), 0.5)


def test_some_of_the_budget_is_left_over() -> None:
    # With five it passes, with nine at ease.
    margins = {n: 2.0 if n < 5 else 0.95 if n < 9 else 0.4 for n in range(101)}
    found = find_float32_nodes(
        lambda kept: verdict(margins[len(kept)]), lambda: NODES, lambda kept: True
    )
    assert found.kept == NODES[:9]


def test_what_passes_narrowly_is_taken_where_nothing_passes_at_ease() -> None:
    def attempt(kept: Sequence[str]) -> Verdict:
        return verdict(0.9 if kept else 3.0)

    found = find_float32_nodes(attempt, lambda: NODES[:4], lambda kept: len(kept) < 4)
    assert found.kept == NODES[:1]


def test_what_would_leave_nothing_is_refused() -> None:
    def attempt(kept: Sequence[str]) -> Verdict:
        return verdict(0.1 if len(kept) == 4 else 3.0)

    found = find_float32_nodes(attempt, lambda: NODES[:4], lambda kept: len(kept) < 4)
    assert found.kept is None
    assert (found.verdict.margin, found.worst) == (3.0, NODES[:4])
    error = precision_error("int8", found.worst, found.verdict)
    assert (error.kind, error.exit_code) == ("precision", 3)
    assert "node 0, node 1, node 2, node 3" in error.message
    assert "3 times its budget" in error.message
    assert "fp16" in error.hint
    assert "--samples" in error.hint


def test_many_names_are_cut_short() -> None:
    assert "node 7 and 92 more keep" in float32_note(NODES, "why")[0]
    assert float32_note((), "why") == ()
    assert float32_note(("one",), "why") == ("one keeps float32: why.",)
    assert "nothing in the model" in precision_error("fp16", (), None).message
    assert "and 92 more" in precision_error("fp16", NODES, Verdict("bad", np.inf, 0.0)).message
