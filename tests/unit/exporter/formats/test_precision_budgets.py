"""What a lower precision may cost, and when an answer is of another class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.interface import Tensor
from exporter.parity.compare import compare
from exporter.parity.evidence import Batching, Evidence
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.samples import load_samples, save_samples
from exporter.parity.tolerances import Tolerance, measure

TABLE = Tensor("y", "FP32", ("n", 2))
CLASSES = Tensor("y", "FP32", ("n", 3))
LABEL = Tensor("label", "INT64", ("n",))
RANDOM = np.random.default_rng(0)


def budget(output: Tensor, answer: np.ndarray[Any, Any], precision: str) -> np.ndarray[Any, Any]:
    tolerance = measure(output, [answer], [], precision)
    assert tolerance is not None
    return tolerance.budget(answer)


def test_each_precision_has_a_wider_budget_than_the_one_above() -> None:
    answer = np.ones((2, 2), np.float32)
    own, half, eighth = (budget(TABLE, answer, p).max() for p in ("fp32", "fp16", "int8"))
    assert own < 1e-3 < half < 0.011 < eighth < 0.081


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_small_column_beside_a_large_one_keeps_its_own(precision: str) -> None:
    answer = np.array([[1e6, 1.0], [-1e6, 0.5]], np.float32)
    tolerance = measure(TABLE, [answer], [(answer, answer.astype(np.float64))], precision)
    assert tolerance is not None
    assert tolerance.budget(answer)[0, 1] < 0.2
    lost = answer * np.float32([1.0, 0.0])
    assert compare("y", answer, lost, tolerance).problem


def test_of_probabilities_a_part_of_one_counts() -> None:
    # The second class is never likely; the logits behind it may be right all the same.
    answer = np.array([[0.99, 1e-4, 0.0099], [0.02, 3e-4, 0.9797]], np.float32)
    assert budget(CLASSES, answer, "fp32")[0, 1] < 1e-5
    assert budget(CLASSES, answer, "fp16")[0, 1] == pytest.approx(5e-3, rel=0.05)
    # What only looks like it, small numbers in a table, is none.
    assert budget(CLASSES, answer / 1000, "int8")[0, 1] < 1e-6


def test_a_pixel_has_the_budget_of_its_channel() -> None:
    image = Tensor("y", "FP32", ("n", 2, 4, 4))
    answer = RANDOM.normal(size=(5, 2, 4, 4)).astype(np.float32)
    answer[:, 0] *= 100
    answer[:, :, 1, 2] = 0.0
    large, small = budget(image, answer, "int8")[0, :, 1, 2]
    assert small > 0.01
    assert large > 20 * small


def test_whole_numbers_may_differ_in_some_rows_only() -> None:
    assert measure(LABEL, [np.zeros(3)], []) is None
    tolerance = measure(LABEL, [np.zeros(3)], [], "int8")
    reference = np.arange(100)
    evidence = Evidence([LABEL])

    def differing(rows: int) -> str:
        candidate = reference.copy()
        candidate[:rows] += 1
        return evidence.record("case", [compare("label", reference, candidate, tolerance)])

    assert differing(3) == ""
    assert evidence.margin < 1
    assert "rows are of another class" in differing(4)
    assert evidence.margin >= 1


def test_one_row_of_a_few_may_be_of_another_class() -> None:
    tolerance = measure(LABEL, [np.zeros(3)], [], "fp16")
    evidence = Evidence([LABEL])
    first = compare("label", np.array([1, 2]), np.array([1, 3]), tolerance)
    assert evidence.record("a", [first]) == ""
    assert "2 of 4 rows" in evidence.record("b", [first])


def test_strings_and_truth_values_are_counted_alike() -> None:
    names = np.array([b"a", b"b"] * 50, object)
    others = names.copy()
    others[:2] = [b"b", b"a"]
    tolerance = measure(Tensor("y", "BYTES", ("n",)), [names], [], "fp16")
    assert compare("y", names, others, tolerance).mismatches == 2
    flags = np.array([True, False])
    assert compare("y", flags, ~flags, tolerance).mismatches == 2


def test_the_class_counts_where_the_reference_decides_it() -> None:
    tolerance = Tolerance(np.array(0.3), 0.0, agreement=0.97)
    reference = np.array([[1.0, 0.5, 0.0], [1.0, 0.9, 0.0]], np.float32)
    swapped = np.array([[0.74, 0.76, 0.0], [0.9, 1.0, 0.0]], np.float32)
    difference = compare("y", reference, swapped, tolerance)
    assert difference.problem == ""
    assert (difference.rows, difference.mismatches) == (1, 1)


def test_infinities_and_no_numbers_decide_nothing() -> None:
    tolerance = Tolerance(np.array(0.1), 0.0, agreement=0.97)
    reference = np.array([[np.nan, 5.0, 1.0], [-np.inf, -np.inf, 2.0]], np.float32)
    difference = compare("y", reference, reference.copy(), tolerance)
    assert (difference.problem, difference.rows, difference.mismatches) == ("", 2, 0)


def test_one_number_a_row_has_no_class() -> None:
    for axes in (("n",), ("n", 1), ("n", "length")):
        tolerance = measure(Tensor("y", "FP32", axes), [np.ones((3, 1), "f4")], [], "int8")
        assert tolerance is not None
        assert tolerance.agreement == 0.0


def test_rows_that_come_again_are_not_counted_as_more() -> None:
    tolerance = measure(LABEL, [np.zeros(3)], [], "fp16")
    evidence = Evidence([LABEL])
    reference = np.arange(50)
    candidate = np.where(reference == 7, 0, reference)
    assert evidence.record("all", [compare("label", reference, candidate, tolerance)]) == ""
    for row in [*range(50)] * 4:
        one = slice(row, row + 1)
        again = compare("label", reference[one], candidate[one], tolerance)
        assert evidence.record("piece", [again], times=4) == ""
    wrong = compare("label", reference, reference + 1, tolerance)
    assert "another class" in evidence.record("glued wrongly", [wrong], times=4)


def references(tolerance: Tolerance | None, own: Tolerance | None) -> ReferenceSet:
    outputs = {"y": np.ones((2, 3), np.float32), "label": np.array([1, 2])}
    answer = ReferenceCase(Case("example", {"x": np.ones((2, 3), np.float32)}), outputs)
    label = Tolerance(np.zeros(()), 0.0, agreement=0.97)
    return ReferenceSet(
        (answer,), None, {"y": tolerance, "label": label}, Batching(8), False,
        {"y": own, "label": None},
    )  # fmt: skip


def test_samples_keep_the_budgets_of_the_precision(tmp_path: Path) -> None:
    answer = np.array([[0.2, 0.7, 0.1]], np.float32)
    tolerance = measure(CLASSES, [answer], [], "int8")
    save_samples(tmp_path / "samples.npz", references(tolerance, None))
    read = load_samples(tmp_path / "samples.npz", Batching(8)).tolerances
    assert read["y"] is not None
    assert read["label"] is not None
    assert tolerance is not None
    assert (read["y"].agreement, read["label"].agreement) == (0.97, 0.97)
    assert read["y"].budget(answer).tolist() == tolerance.budget(answer).tolist()


def test_in_the_models_own_precision_the_file_is_what_it_was(tmp_path: Path) -> None:
    own = measure(CLASSES, [np.ones((2, 3), np.float32)], [])
    given = references(own, own).in_own_precision()
    save_samples(tmp_path / "samples.npz", given)
    with np.load(tmp_path / "samples.npz") as archive:
        assert [name for name in archive.files if name.startswith("tolerance/")] == [
            "tolerance/y/typical",
            "tolerance/y/factors",
        ]
    assert load_samples(tmp_path / "samples.npz", Batching(8)).tolerances["label"] is None


def test_ways_to_convert_are_chosen_by_the_models_own_budgets() -> None:
    wide, own = Tolerance(np.array(1.0), 0.0), Tolerance(np.array(1e-6), 0.0)
    given = references(wide, own).renamed({"y": "OUTPUT__0"})
    assert given.tolerances["OUTPUT__0"] is wide
    assert given.in_own_precision().tolerances == {"OUTPUT__0": own, "label": None}
