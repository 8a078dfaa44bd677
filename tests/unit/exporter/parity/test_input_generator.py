from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import ValidationFailedError
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case, InputGenerator, named_samples
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.samples import load_arrays, load_samples, save_samples
from exporter.parity.tolerances import Tolerance

OUTPUTS = (Tensor("y", "FP32", ("n",)),)
TOKENS = Interface((Tensor("tokens", "INT64", ("n", "length")),), OUTPUTS)
MIXED = Interface(
    (
        Tensor("x", "FP32", ("n", 3)),
        Tensor("mask", "BOOL", ("n", 3)),
        Tensor("name", "BYTES", ("n",)),
        Tensor("code", "INT32", ("n", 1)),
    ),
    OUTPUTS,
)


def example(interface: Interface = MIXED) -> dict[str, np.ndarray[Any, Any]]:
    if interface is TOKENS:
        return {"tokens": np.array([[3, 7, 90], [11, 7, 42]])}
    return {
        "x": np.array([[100.0, 250.5, 199.0], [130.25, 210.0, 101.0]], np.float32),
        "mask": np.array([[True, False, True], [True, True, True]]),
        "name": np.array([b"north", b"south"], object),
        "code": np.array([[-5], [12]], np.int32),
    }


def test_the_same_seed_gives_the_same_inputs() -> None:
    first = InputGenerator(MIXED, example()).random("a", rows=5)
    again = InputGenerator(MIXED, example()).random("a", rows=5)
    other = InputGenerator(MIXED, example()).random("b", rows=5)
    reseeded = InputGenerator(MIXED, example(), seed=1).random("a", rows=5)
    for name in first:
        assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first["x"], other["x"])
    assert not np.array_equal(first["x"], reseeded["x"])


def test_dtypes_and_shapes_are_the_interfaces() -> None:
    drawn = InputGenerator(MIXED, example()).random("a", rows=7)
    assert {name: (str(a.dtype), a.shape) for name, a in drawn.items()} == {
        "x": ("float32", (7, 3)),
        "mask": ("bool", (7, 3)),
        "name": ("object", (7,)),
        "code": ("int32", (7, 1)),
    }


def test_rows_are_distinct() -> None:
    rows = InputGenerator(MIXED, example()).random("a", rows=64)["x"]
    assert len(np.unique(rows, axis=0)) == 64


@pytest.mark.parametrize("label", [f"draw {n}" for n in range(20)])
def test_whole_numbers_and_strings_stay_within_the_example(label: str) -> None:
    tokens = InputGenerator(TOKENS, example(TOKENS)).random(label, {"length": 9}, rows=32)["tokens"]
    assert set(tokens.ravel()) <= {3, 7, 90, 11, 42}
    drawn = InputGenerator(MIXED, example()).random(label, rows=32)
    assert set(drawn["code"].ravel()) <= {-5, 12}
    assert set(drawn["name"]) <= {b"north", b"south"}


def test_floats_reach_a_little_beyond_the_example() -> None:
    drawn = InputGenerator(MIXED, example()).random("a", rows=1000)["x"]
    low, high = 100.0, 250.5
    assert drawn.min() < low + 10
    assert drawn.max() > high - 10
    assert drawn.min() > low - (high - low)
    assert drawn.max() < high + (high - low)


def test_whole_floats_of_few_values_are_codes() -> None:
    interface = Interface((Tensor("x", "FP32", ("n", 2)),), OUTPUTS)
    codes = np.array([[0, 5], [1, 9]], np.float32)
    drawn = InputGenerator(interface, {"x": codes}).random("a", rows=50)["x"]
    assert set(drawn.ravel()) <= {0.0, 1.0, 5.0, 9.0}


def test_no_example_still_gives_inputs() -> None:
    drawn = InputGenerator(MIXED, None).random("a", rows=3)
    assert np.isfinite(drawn["x"]).all()
    assert set(drawn["code"].ravel()) <= {0, 1}


@pytest.mark.parametrize("values", [[], [[np.nan, np.inf, -np.inf]]])
def test_an_example_without_a_finite_number_still_gives_inputs(values: list[Any]) -> None:
    interface = Interface((Tensor("x", "FP32", ("n", 3)),), OUTPUTS)
    odd = np.array(values, np.float32).reshape(-1, 3)
    generator = InputGenerator(interface, {"x": odd})
    assert np.isfinite(generator.random("a", rows=4)["x"]).all()
    assert all(np.isfinite(case.inputs["x"]).all() for case in generator.edges(rows=2))


def test_edges_hold_the_example_s_borders() -> None:
    cases = {case.name: case.inputs for case in InputGenerator(MIXED, example()).edges(rows=2)}
    assert (cases["edge zero"]["x"] == 0).all()
    shown = example()["x"]
    assert (cases["edge low"]["x"] <= shown.min(axis=0)).all()
    assert (cases["edge high"]["x"] >= shown.max(axis=0)).all()
    assert not np.signbit(cases["edge zero"]["x"]).any()
    assert (cases["edge negative"]["x"] < 0).all()
    for inputs in cases.values():
        assert set(inputs["code"].ravel()) <= {-5, 12}


def test_other_axes_are_varied_and_rows_are_not() -> None:
    generator = InputGenerator(TOKENS, example(TOKENS))
    sizes = {name: values["length"] for name, values in generator.other_sizes({})}
    assert sizes == {"longer": 4, "shorter": 1, "double": 6}
    more = [*generator.other_sizes({"length": [2, 65], "rows": [9]})]
    assert more[3:] == [("size-2", {"length": 2}), ("size-65", {"length": 65})]
    assert generator.random("a", {"length": 4}, rows=2)["tokens"].shape == (2, 4)
    assert list(InputGenerator(MIXED, example()).other_sizes({})) == []


def test_equal_symbols_have_equal_sizes() -> None:
    tensors = (Tensor("a", "FP32", ("n", "t")), Tensor("b", "FP32", ("n", "t")))
    given = {"a": np.zeros((2, 5), "f4"), "b": np.zeros((2, 5), "f4")}
    generator = InputGenerator(Interface(tensors, OUTPUTS), given)
    for _, sizes in generator.other_sizes({}):
        drawn = generator.random("x", sizes, rows=1)
        assert drawn["a"].shape == drawn["b"].shape != (1, 5)


def test_samples_are_taken_by_name() -> None:
    tokens = np.array([[1, 2]])
    cases = named_samples({"tokens": tokens, "rare/tokens": tokens + 1}, TOKENS)
    assert [case.name for case in cases] == ["sample sample", "sample rare"]
    assert cases[1].inputs["tokens"].tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"token": np.array([[1]])}, "the model takes"),
        ({"tokens": np.array([[1]], np.int32)}, "int32"),
        ({"tokens": np.array([1])}, r"\[1\]"),
        ({"case/tokens": np.array([[1]]), "case/more": np.array([[1]])}, "more"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    samples: dict[str, np.ndarray[Any, Any]], words: str
) -> None:
    with pytest.raises(ValidationFailedError, match=words):
        named_samples(samples, TOKENS)


def test_names_of_inputs_and_cases_may_hold_slashes() -> None:
    interface = Interface((Tensor("a/x", "FP32", ("n",)), Tensor("x", "FP32", ("n",))), ())
    x = np.zeros(1, np.float32)
    cases = named_samples({"a/x": x, "x": x + 1, "b/c/a/x": x + 2, "b/c/x": x + 3}, interface)
    assert [case.name for case in cases] == ["sample sample", "sample b_c"]
    assert [float(case.inputs["a/x"][0]) for case in cases] == [0.0, 2.0]
    with pytest.raises(ValidationFailedError, match="two cases are called 'b_c'"):
        named_samples({"b/c/x": x, "b_c/x": x}, interface)


def references() -> ReferenceSet:
    inputs = example()
    outputs = {
        "y": np.array([1.0, np.nan], np.float32),
        "label": np.array([b"", b"\xff\0"], object),
    }
    tolerances = {"y": Tolerance(np.array(0.25), 0.125, share=0.5, floor=2.0), "label": None}
    answers = (
        ReferenceCase(Case("example", inputs), outputs),
        ReferenceCase(Case("a b", inputs), outputs),
    )
    return ReferenceSet(answers, None, tolerances, Batching(8), slow=False)


def test_samples_come_back_as_they_were_kept(tmp_path: Path) -> None:
    given = references()
    kept = save_samples(tmp_path / "samples.npz", given)
    assert [answer.case.name for answer in kept] == ["example", "a b"]
    read = load_samples(tmp_path / "samples.npz", Batching(8))
    assert read.batching.max_batch_size == 8
    assert [answer.case.name for answer in read.cases] == ["example", "a b"]
    for before, after in zip(given.cases, read.cases, strict=True):
        for name, array in before.case.inputs.items():
            assert after.case.inputs[name].dtype == array.dtype
            assert np.array_equal(after.case.inputs[name], array)
        assert np.array_equal(after.outputs["y"], before.outputs["y"], equal_nan=True)
        assert after.outputs["label"].tolist() == [b"", b"\xff\0"]
    tolerance = read.tolerances["y"]
    assert tolerance is not None
    assert tolerance == Tolerance(np.array(0.25), 0.125, share=0.5, floor=2.0)
    assert read.tolerances["label"] is None


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    save_samples(tmp_path / "one.npz", references())
    save_samples(tmp_path / "two.npz", references())
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_pickles_in_an_npz_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, tokens=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValidationFailedError, match="plain arrays"):
        load_arrays(path)


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def corrupt() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.arange(1000))
    content = bytearray(file.getvalue())
    content[60:90] = bytes(30)
    return bytes(content)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"no archive", npy(), corrupt()])
def test_a_damaged_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises(ValidationFailedError, match="cannot be read"):
        load_arrays(path)


def test_text_in_an_npz_becomes_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", name=np.array(["nörth", "a"]))
    assert load_arrays(tmp_path / "s.npz")["name"].tolist() == ["nörth".encode(), b"a"]
