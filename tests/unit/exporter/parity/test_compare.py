from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.interface import Tensor
from exporter.parity.compare import compare, compare_outputs
from exporter.parity.tolerances import Tolerance, batch_invariance_tolerance, measure

TIGHT = Tolerance(np.array(1e-6), 0.0)
REFERENCE = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)


def changed(index: tuple[int, int], value: float) -> np.ndarray[Any, Any]:
    array = REFERENCE.copy()
    array[index] = value
    return array


def test_equal_arrays_pass_with_no_margin() -> None:
    difference = compare("y", REFERENCE, REFERENCE.copy(), TIGHT)
    assert (difference.problem, difference.margin, difference.max_abs_error) == ("", 0.0, 0.0)


def test_the_margin_is_the_error_over_the_budget() -> None:
    tolerance = Tolerance(np.array(0.5), 0.0)
    difference = compare("y", REFERENCE, changed((1, 0), 3.25), tolerance)
    assert difference.problem == ""
    assert difference.margin == pytest.approx(0.5)
    assert difference.max_abs_error == pytest.approx(0.25)
    assert difference.index == (1, 0)
    assert difference.ratios is not None
    assert difference.ratios.size == 4


def test_an_error_out_of_budget_is_located_and_counted() -> None:
    difference = compare("y", REFERENCE, changed((0, 1), 2.5), TIGHT)
    assert "[0, 1]" in difference.problem
    assert "1 of 4" in difference.problem
    assert difference.margin > 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_value_on_one_side_fails_whatever_the_budget(value: float) -> None:
    wide = Tolerance(np.array(1e30), 1.0)
    special = changed((1, 1), value)
    assert "where the reference has none" in compare("y", REFERENCE, special, wide).problem
    assert "a number at [1, 1]" in compare("y", special, REFERENCE, wide).problem
    assert compare("y", special, special.copy(), TIGHT).problem == ""


def test_the_sign_of_infinity_counts() -> None:
    plus, minus = changed((0, 0), np.inf), changed((0, 0), -np.inf)
    assert compare("y", plus, minus, Tolerance(np.array(1e30), 1.0)).problem


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (REFERENCE.astype(np.float64), "dtype float64, expected float32"),
        (REFERENCE[:1], r"shape [1, 2], expected [2, 2]"),
        (REFERENCE.reshape(4), "shape [4]"),
    ],
)
def test_another_dtype_or_shape_fails(candidate: np.ndarray[Any, Any], words: str) -> None:
    assert words in compare("y", REFERENCE, candidate, TIGHT).problem


def test_an_empty_output_passes() -> None:
    empty = np.empty((0, 2), dtype=np.float32)
    assert compare("y", empty, empty.copy(), TIGHT).problem == ""


def test_a_scalar_is_compared() -> None:
    one, two = np.array(1.0, np.float32), np.array(2.0, np.float32)
    assert compare("y", one, one, TIGHT).problem == ""
    assert compare("y", one, two, TIGHT).problem


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True, False]), np.array([True, True])),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object)),
    ],
)
def test_what_is_no_float_must_be_equal(
    reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]
) -> None:
    assert compare("y", reference, reference.copy(), None).problem == ""
    difference = compare("y", reference, candidate, None)
    assert "1 of 2 elements differ" in difference.problem
    assert difference.index == (1,)


def test_a_flip_that_float64_agrees_with_is_counted_apart() -> None:
    reference, candidate = np.array([1, 2, 3]), np.array([1, 5, 3])
    difference = compare("y", reference, candidate, None, float64=np.array([1, 5, 3]))
    assert (difference.problem, difference.flips) == ("", 1)
    assert compare("y", reference, candidate, None, float64=reference).problem


def test_a_missing_output_fails() -> None:
    outputs = (Tensor("y", "FP32", ("n", 2)), Tensor("z", "FP32", ("n", 2)))
    both = {"y": REFERENCE, "z": REFERENCE}
    there, missing = compare_outputs(outputs, both, {"y": REFERENCE}, {"y": TIGHT, "z": TIGHT})
    assert there.problem == ""
    assert "the output is missing (there are: y)" in missing.problem


OUTPUT = Tensor("y", "FP32", ("n", 2))


def test_a_small_column_beside_a_large_one_has_a_small_budget() -> None:
    answer = np.array([[1e6, 1.0], [-1e6, 0.5]], np.float32)
    tolerance = measure(OUTPUT, [answer], [(answer, answer.astype(np.float64))])
    assert tolerance is not None
    large, small = tolerance.budget(np.zeros((1, 2), np.float32))[0]
    assert large > 1.0
    assert small < 1.0
    assert small < large / 50


def test_a_model_noisy_in_float32_gets_room_for_its_noise_up_to_a_cap() -> None:
    answer = np.ones((3, 2), np.float32)
    quiet = measure(OUTPUT, [answer], [(answer, answer.astype(np.float64))])
    noisy = measure(OUTPUT, [answer], [(answer, answer + 1e-3)])
    wild = measure(OUTPUT, [answer], [(answer, answer + 100.0)])
    assert quiet is not None
    assert noisy is not None
    assert wild is not None
    one = np.ones((1, 2), np.float32)
    assert quiet.budget(one).max() < 1e-3 < noisy.budget(one).min() < wild.budget(one).min()
    assert wild.budget(one).max() < 0.05


@pytest.mark.parametrize("datatype", ["INT64", "INT32", "BOOL", "UINT8", "BYTES"])
def test_what_is_no_float_has_no_budget(datatype: str) -> None:
    assert measure(Tensor("y", datatype, ("n",)), [np.zeros(3)], []) is None


def test_float16_has_a_wider_budget_than_float64() -> None:
    def width(datatype: str, dtype: type) -> float:
        answer = np.ones((2, 2), dtype)
        tolerance = measure(Tensor("y", datatype, ("n", 2)), [answer], [])
        assert tolerance is not None
        return float(tolerance.budget(answer).max())

    assert width("FP64", np.float64) < width("FP32", np.float32) < width("FP16", np.float16)


def test_no_budget_is_ever_zero() -> None:
    zeros = np.zeros((2, 2), np.float32)
    tolerance = measure(OUTPUT, [zeros], [])
    assert tolerance is not None
    assert (tolerance.budget(zeros) > 0).all()
    assert (batch_invariance_tolerance(tolerance).budget(zeros) > 0).all()


def test_rows_mixed_by_a_thousandth_are_beyond_the_tight_budget() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    tolerance = measure(OUTPUT, [rows], [])
    assert tolerance is not None
    mixed = (rows + 1e-3 * rows.mean(0)).astype(np.float32)
    assert compare("y", rows, mixed, batch_invariance_tolerance(tolerance)).problem


def test_positions_that_vary_share_one_budget() -> None:
    varying = Tensor("y", "FP32", ("n", "length"))
    tolerance = measure(varying, [np.ones((2, 3), "f4"), np.full((1, 5), 9, "f4")], [])
    assert tolerance is not None
    assert tolerance.budget(np.ones((4, 7), np.float32)).shape == (4, 7)


def test_one_huge_answer_excuses_no_wrong_small_one() -> None:
    small = np.random.default_rng(1).uniform(1, 9, size=(8, 2)).astype(np.float32)
    huge = np.full((1, 2), 1e6, np.float32)
    tolerance = measure(OUTPUT, [small, huge], [(small, small.astype(np.float64))])
    assert tolerance is not None
    assert compare("y", small, np.zeros_like(small), tolerance).margin > 1000
    assert compare("y", small, small * np.float32(1.001), tolerance).problem
    # Rounding of the huge numbers reaches all that is made of them.
    beside = np.array([[1e6, 1e-3], [1e6, 2e-3]], np.float32)
    assert not compare("y", beside, beside + np.float32([[0, 1e-2], [0, 1e-2]]), tolerance).problem


def test_a_position_that_is_mostly_zero_has_the_budget_of_the_rest() -> None:
    sparse = np.zeros((20, 2), np.float32)
    sparse[3] = (2.0, 4.0)
    tolerance = measure(OUTPUT, [sparse], [(sparse, sparse.astype(np.float64))])
    assert tolerance is not None
    assert tolerance.budget(sparse[:1])[0].tolist() == pytest.approx([2.04e-5, 4.04e-5])
