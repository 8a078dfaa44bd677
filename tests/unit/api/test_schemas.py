"""JSON in and out, of every data type."""

from __future__ import annotations

import json
import math
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlab_api.problems import Problem
from stlab_api.schemas import RequestSchema, to_json, to_lists
from tests.unit.api.fakes import finished, model_spec, running
from triton_client.types import ModelSpec, TensorSpec

SECRET = "hunter2"
LIMITS = {f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)
}
FLOATS = ("FP16", "FP32", "FP64", "BF16")
examples = settings(max_examples=50, derandomize=True, deadline=None, database=None)


def codec(*inputs: TensorSpec, max_batch_size: int = 8, max_rows: int = 16) -> RequestSchema:
    return RequestSchema(
        model_spec(inputs=inputs, max_batch_size=max_batch_size),
        max_rows=max_rows,
        max_bytes=10**6,
    )


def read(datatype: str, values: Any, shape: tuple[int, ...] = (-1,)) -> Any:
    body = json.dumps({"inputs": {"x": values}}).encode()
    return codec(TensorSpec("x", datatype, shape)).from_json(body)["x"]


def refused(reader: RequestSchema, body: Any) -> Problem:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as caught:
        reader.from_json(raw)
    return caught.value


def refused_value(datatype: str, value: Any, shape: tuple[int, ...] = (-1,)) -> Problem:
    given = value if len(shape) > 1 else [value]
    return refused(codec(TensorSpec("x", datatype, shape)), {"inputs": {"x": given}})


def test_integers_are_taken_up_to_their_limits_and_no_further() -> None:
    for datatype, (low, high) in LIMITS.items():
        array = read(datatype, [low, 0, high])
        assert array.dtype == np.dtype(datatype.lower())
        assert array.tolist() == [low, 0, high]
        for value in (low - 1, high + 1, 10**30):
            problem = refused_value(datatype, value)
            assert (problem.status, problem.kind) == (422, "invalid-input")
            assert problem.errors[0]["pointer"] == "/inputs/x/0"


def test_an_integer_is_nothing_but_an_integer() -> None:
    for value in (True, 1.0, 1.5, "1", None, [1], {}):
        for datatype in ("INT8", "UINT64", "INT64"):
            assert refused_value(datatype, value).status == 422


def test_a_bool_is_nothing_but_a_bool() -> None:
    for value in (0, 1, 1.0, "true", "", None):
        assert refused_value("BOOL", value).status == 422
        array = read("BOOL", [True, False])
        assert array.dtype == np.bool_
        assert array.tolist() == [True, False]


def test_a_float_is_nothing_but_a_number() -> None:
    for value in (True, "1", "NaN", None, [1.0]):
        for datatype in FLOATS:
            assert refused_value(datatype, value).status == 422
            assert read(datatype, [1, 2.5]).astype(float).tolist() == [1.0, 2.5]


def test_a_number_that_a_float_cannot_hold_does_not_become_infinite() -> None:
    for datatype, most, beyond in (
        ("FP16", 65504.0, 70000.0),
        ("FP32", 3.4028235e38, 1e39),
        ("FP32", -3.4028235e38, -(10**50)),
    ):
        assert np.isfinite(read(datatype, [most])).all()
        problem = refused_value(datatype, beyond)
        assert problem.status == 422
        assert problem.errors[0]["pointer"] == "/inputs/x/0"
        assert "length" not in problem.detail
        nested = codec(TensorSpec("x", datatype, (-1, 2, 2)))
        body = {"inputs": {"x": [[[1, 2], [3, 4]], [[5, 6], [beyond, 8]]]}}
        found = refused(nested, body)
        assert found.errors[0]["pointer"] == "/inputs/x/1/1/0"
        with pytest.raises(Problem) as caught:
            nested.from_large_json(json.dumps(body).encode(), until=monotonic() + 60)
        assert (caught.value.detail, caught.value.errors) == (found.detail, found.errors)


def test_half_floats_are_rounded_as_numpy_rounds_them() -> None:
    values = [0.1, 1 / 3, 65519.0, 6e-8, 1e-9]
    assert np.array_equal(read("FP16", values), np.array(values, np.float16))


def test_a_string_is_nothing_but_a_string() -> None:
    for value in (1, True, None, ["a"], 1.5):
        assert refused_value("BYTES", value).status == 422


def test_strings_are_utf_8_bytes() -> None:
    given = ["", "a\0b", "é", "日本", "😀", "a" * 5000]
    array = read("BYTES", given)
    assert array.dtype == object
    assert array.tolist() == [word.encode() for word in given]
    nested = read("BYTES", [["a", "b"], ["c", "d"]], (-1, 2))
    assert nested.tolist() == [[b"a", b"b"], [b"c", b"d"]]


def test_what_is_no_unicode_is_refused() -> None:
    for body in (b'{"inputs":{"x":["\\ud800"]}}', b'{"inputs":{"x":["\xff"]}}'):
        problem = refused(codec(TensorSpec("x", "BYTES", (-1,))), body)
        assert (problem.status, problem.kind) == (400, "malformed")


def test_what_is_no_json_is_malformed() -> None:
    for body in (b"", b"nul", b"{", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"inputs": {"x": [01]}}'):
        problem = refused(codec(TensorSpec("x", "FP32", (-1,))), body)
        assert (problem.status, problem.kind) == (400, "malformed")
        assert len(problem.detail) < 300


def test_a_fixed_size_is_held() -> None:
    for values in (
        [[1.0, 2.0]],
        [[1.0, 2.0, 3.0, 4.0]],
        [[1.0, 2.0, 3.0], [1.0]],
        [1.0],
        [[[1.0]]],
    ):
        assert refused_value("FP32", values, (-1, 3)).status == 422
        assert read("FP32", [[1, 2, 3], [4, 5, 6]], (-1, 3)).shape == (2, 3)


def test_a_first_axis_of_fixed_size_is_held() -> None:
    reader = codec(TensorSpec("x", "INT32", (2,)), max_batch_size=0)
    assert reader.from_json(b'{"inputs":{"x":[1,2]}}')["x"].tolist() == [1, 2]
    assert refused(reader, {"inputs": {"x": [1, 2, 3]}}).status == 422


def test_rows_of_different_lengths_are_refused() -> None:
    for datatype, v in (("FP32", 1), ("INT64", 1), ("BYTES", "a"), ("BOOL", True)):
        for shape, rows in (
            ((-1, -1), [[v, v], [v]]),
            ((-1, 2, -1), [[[v, v], [v]], [[v, v], [v]]]),
            ((-1, 2, -1), [[[v, v], [v, v]], [[v], [v]]]),
        ):
            problem = refused_value(datatype, rows, shape)
            assert problem.status == 422
            assert [error["pointer"] for error in problem.errors] == ["/inputs/x"]
            assert "different lengths" in problem.detail


def test_nothing_is_no_request() -> None:
    for values in ([], [[]], [[], []]):
        assert refused_value("FP32", values, (-1, -1)).status == 422


def test_a_scalar_is_no_list() -> None:
    reader = codec(TensorSpec("x", "FP32", ()), max_batch_size=0)
    array = reader.from_json(b'{"inputs":{"x":1.5}}')["x"]
    assert (array.shape, float(array)) == ((), 1.5)
    assert refused(reader, {"inputs": {"x": [1.5]}}).status == 422


AWKWARD = ("dense/out:0", "class", "model_config", "t0", "a b", "~x", "日本", "_private", "1", "")


def test_names_may_be_anything() -> None:
    reader = codec(*(TensorSpec(name, "INT8", (-1,)) for name in AWKWARD))
    body = {"inputs": {name: [place] for place, name in enumerate(AWKWARD)}}
    arrays = reader.from_json(json.dumps(body).encode())
    assert {name: array.tolist() for name, array in arrays.items()} == body["inputs"]


def test_an_input_is_known_by_its_own_name_alone() -> None:
    reader = codec(TensorSpec("t1", "INT8", (-1,)), TensorSpec("t0", "INT8", (-1,)))
    arrays = reader.from_json(b'{"inputs":{"t0":[0],"t1":[1]}}')
    assert {name: array.tolist() for name, array in arrays.items()} == {"t0": [0], "t1": [1]}
    other = codec(TensorSpec("x", "INT8", (-1,)))
    assert refused(other, {"inputs": {"t0": [0]}}).status == 422


def test_a_pointer_is_escaped_as_rfc_6901_says() -> None:
    reader = codec(TensorSpec("a~b/c", "INT8", (-1, -1)))
    problem = refused(reader, {"inputs": {"a~b/c": [["no"]]}})
    assert problem.errors[0]["pointer"] == "/inputs/a~0b~1c/0/0"
    ragged = refused(reader, {"inputs": {"a~b/c": [[1], [1, 2]]}})
    assert ragged.errors[0]["pointer"] == "/inputs/a~0b~1c"


def test_extra_and_missing_names_are_pointed_at() -> None:
    for body, pointer in (
        ({"inputs": {"x": [1.0], "z": [1.0]}}, "/inputs/z"),
        ({"inputs": {"x": [1.0]}, "parameters": {}}, "/parameters"),
        ({"inputs": {}}, "/inputs/x"),
        ({}, "/inputs"),
        ({"inputs": None}, "/inputs"),
        ({"inputs": [1]}, "/inputs"),
        ([], ""),
    ):
        problem = refused(codec(TensorSpec("x", "FP32", (-1,))), body)
        assert (problem.status, problem.kind) == (422, "invalid-input")
        assert pointer in {error["pointer"] for error in problem.errors}


def test_an_optional_input_may_be_left_out() -> None:
    reader = codec(TensorSpec("x", "FP32", (-1,)), TensorSpec("m", "BOOL", (-1,), optional=True))
    assert set(reader.from_json(b'{"inputs":{"x":[1]}}')) == {"x"}
    assert set(reader.from_json(b'{"inputs":{"x":[1],"m":null}}')) == {"x"}
    assert reader.from_json(b'{"inputs":{"x":[1],"m":[true]}}')["m"].tolist() == [True]
    assert refused(reader, {"inputs": {"m": [True]}}).status == 422
    assert refused(reader, {"inputs": {"x": [1], "m": [1]}}).status == 422


def test_rows_are_limited() -> None:
    reader = codec(TensorSpec("x", "FP32", (-1,)), max_rows=3)
    assert len(reader.from_json(b'{"inputs":{"x":[1,2,3]}}')["x"]) == 3
    problem = refused(reader, {"inputs": {"x": [1, 2, 3, 4]}})
    assert problem.status == 422
    assert "3" in problem.detail


def test_inputs_have_the_same_rows_where_rows_are_batched() -> None:
    tensors = (TensorSpec("x", "FP32", (-1,)), TensorSpec("z", "FP32", (-1,)))
    body = {"inputs": {"x": [1, 2], "z": [1]}}
    problem = refused(codec(*tensors), body)
    assert (problem.status, problem.kind) == (422, "invalid-input")
    assert "rows" in problem.detail
    free = codec(*tensors, max_batch_size=0).from_json(json.dumps(body).encode())
    assert [len(free["x"]), len(free["z"])] == [2, 1]


def test_not_more_than_a_screen_of_errors_is_told() -> None:
    problem = refused(
        codec(TensorSpec("x", "FP32", (-1,)), max_rows=999), {"inputs": {"x": ["a"] * 500}}
    )
    assert 1 < len(problem.errors) <= 20


WRONG = {
    "BOOL": (SECRET, [SECRET], {"a": SECRET}, 271828),
    "INT8": (SECRET, [SECRET], {"a": SECRET}, 271828, 2.71828),
    "UINT64": (SECRET, -271828, 271828182845904523536),
    "FP16": (SECRET, "271828", [SECRET], {"a": SECRET}, [[271828]]),
    "BYTES": (271828, [SECRET], {"a": SECRET}, 2.71828, [[271828]]),
}


def test_no_value_of_a_request_is_in_an_error() -> None:
    for datatype, values in WRONG.items():
        reader = codec(TensorSpec("x", datatype, (-1,)))
        for wrong in values:
            inputs = {"x": [wrong]}
            for body in (
                {"inputs": inputs},
                {"inputs": {"x": {"a": wrong}}},
                {"inputs": [wrong]},
                [wrong],
            ):
                told = refused(reader, body).response("id").body.decode()
                assert SECRET not in told
                assert "71828" not in told


def test_no_value_of_a_malformed_request_is_in_an_error() -> None:
    reader = codec(TensorSpec("x", "BYTES", (-1,)))
    for body in (
        f'{{"inputs":{{"x":["{SECRET}"',
        f'{{"inputs":{{"x":["\\{SECRET}"]}}}}',
        SECRET,
        f'"{SECRET}',
    ):
        assert SECRET not in refused(reader, body.encode()).response().body.decode()


NUMBERS = st.one_of(
    st.sampled_from(sorted(LIMITS)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.just(st.integers(*LIMITS[kind])))
    ),
    st.tuples(st.just("FP64"), st.just(st.floats(allow_nan=False, allow_infinity=False))),
    st.tuples(st.just("FP32"), st.just(st.floats(width=32, allow_nan=False, allow_infinity=False))),
    st.tuples(st.just("FP16"), st.just(st.floats(width=16, allow_nan=False, allow_infinity=False))),
    st.tuples(st.just("BOOL"), st.just(st.booleans())),
)


@examples
@given(data=st.data(), kind=NUMBERS, rows=st.integers(1, 4), width=st.integers(1, 3))
def test_numbers_become_what_numpy_makes_of_them_and_come_back(
    data: st.DataObject, kind: tuple[str, Any], rows: int, width: int
) -> None:
    datatype, values = kind
    row = st.lists(values, min_size=width, max_size=width)
    given = data.draw(st.lists(row, min_size=rows, max_size=rows))
    array = read(datatype, given, (-1, -1))
    wanted = np.array(given, TensorSpec("x", datatype, ()).dtype)
    assert array.dtype == wanted.dtype
    assert np.array_equal(array, wanted)
    back = to_lists({"x": array})["x"]
    assert np.array_equal(np.array(back, wanted.dtype), wanted)


@examples
@given(given=st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=6))
def test_strings_come_back(given: list[str]) -> None:
    array = read("BYTES", given)
    assert array.tolist() == [word.encode() for word in given]
    assert to_lists({"x": array})["x"] == given


def written(datatype: str, array: Any) -> Any:
    shape = (-1,) * array.ndim
    spec = ModelSpec("toy", "1", "fake", 0, (), (TensorSpec("y", datatype, shape),))
    return json.loads(to_json(spec, {"y": array}, {"name": "toy"}), parse_constant=pytest.fail)


def test_nan_and_the_infinities_become_null() -> None:
    for datatype in FLOATS:
        dtype = TensorSpec("y", datatype, ()).dtype
        answer = written(datatype, np.array([[1.5, math.nan], [math.inf, -math.inf]], dtype))
        assert answer["outputs"] == {"y": [[1.5, None], [None, None]]}
        assert answer["model"] == {"name": "toy"}


def test_integers_are_written_whole() -> None:
    for datatype in LIMITS:
        limits = [*LIMITS[datatype]]
        assert written(datatype, np.array(limits, datatype.lower()))["outputs"]["y"] == limits


def test_outputs_are_written_whatever_their_layout_in_memory() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (array.T, array[::2, ::-1], array[:0], np.asfortranarray(array)):
        assert written("FP32", view)["outputs"]["y"] == view.tolist()


def test_strings_that_are_no_text_are_written_with_marks() -> None:
    assert written("BYTES", np.array([b"ok", b"\xff"], object))["outputs"]["y"] == ["ok", "\ufffd"]
    assert written("BYTES", np.array([], object))["outputs"]["y"] == []


def test_a_prediction_by_json() -> None:
    async def ask() -> Any:
        async with running() as toy:
            return (await toy.predict([[1, 2], [3, 4.5]])).json()

    assert finished(ask()) == {
        "model": {"name": "toy", "version": 1, "alias": "prod"},
        "outputs": {"y": [[2.0, 4.0], [6.0, 9.0]]},
    }
