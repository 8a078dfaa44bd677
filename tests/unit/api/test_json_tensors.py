"""Large JSON requests are read as small ones are, in bounded time and memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlab_api.problems import Problem
from stlab_api.schemas import RequestSchema
from tests.unit.api.fakes import model_spec
from triton_client.types import TensorSpec

MIB = 1024 * 1024
SPECS = {
    "FP32": TensorSpec("x", "FP32", (-1, 2)),
    "FP64": TensorSpec("x", "FP64", (-1,)),
    "FP16": TensorSpec("x", "FP16", (2, -1, -1)),
    "INT8": TensorSpec("x", "INT8", (-1, 2)),
    "UINT64": TensorSpec("x", "UINT64", (-1,)),
    "BOOL": TensorSpec("x", "BOOL", (-1, 1)),
    "BYTES": TensorSpec("x", "BYTES", (-1, -1)),
    "scalar": TensorSpec("x", "FP32", ()),
    "optional": TensorSpec("x", "INT64", (-1,), optional=True),
}


def codec(*inputs: TensorSpec, max_bytes: int = 16 * MIB) -> RequestSchema:
    return RequestSchema(
        model_spec(inputs=inputs, max_batch_size=0), max_rows=1024, max_bytes=max_bytes
    )


def result(read: Any) -> Any:
    try:
        return {name: (a.dtype, a.tolist()) for name, a in read().items()}
    except Problem as problem:
        return problem.status, problem.kind


def both(reader: RequestSchema, body: bytes) -> tuple[Any, Any]:
    until = time.monotonic() + 60
    return (
        result(lambda: reader.from_json(body)),
        result(lambda: reader.from_large_json(body, until=until)),
    )


numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-130, 260)
    | st.sampled_from([1e39, -1e300, 65504.0, 65536.0, 10**30, 2**64 - 1])
)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=3) | st.just({})
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
rows = st.lists(
    st.lists(st.sampled_from([0, 1, 2.5, -7, 300, True, "a", "é"]), min_size=1, max_size=3),
    min_size=1,
    max_size=3,
)
requests = (
    st.fixed_dictionaries({"inputs": st.fixed_dictionaries({"x": values | rows | numbers})})
    | st.fixed_dictionaries({"inputs": st.dictionaries(st.sampled_from("xyz"), values)})
    | st.dictionaries(st.sampled_from(["inputs", "other"]), values)
    | values
)


@pytest.mark.parametrize("kind", SPECS)
@settings(max_examples=60, deadline=None)
@given(request=requests)
def test_both_readers_say_the_same(kind: str, request: Any) -> None:
    small, large = both(codec(SPECS[kind]), json.dumps(request).encode())
    assert small == large


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=60) | st.text('{}[]",:0123456789.eE+-truefalsn \\u').map(str.encode))
def test_what_is_no_json_is_refused_by_both(body: bytes) -> None:
    for found in both(codec(SPECS["FP32"]), body):
        assert found[0] in {400, 422}


def test_numbers_that_are_not_finite_are_refused_where_they_stand() -> None:
    for word in ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e39", "1" + "0" * 400):
        for body in (
            b'{"inputs": {"x": [[1, 2], [3, %s]]}}' % word.encode(),
            b'{"inputs": {"x": [[%s, 2]]}}' % word.encode(),
        ):
            for read in (
                codec(SPECS["FP32"]).from_json,
                lambda b: codec(SPECS["FP32"]).from_large_json(b, until=time.monotonic() + 60),
            ):
                with pytest.raises(Problem) as caught:
                    read(body)
                assert (caught.value.status, caught.value.kind) == (422, "invalid-input")
                assert caught.value.errors[0]["pointer"].startswith("/inputs/x")


def test_texts_are_kept_as_they_are() -> None:
    words = ["", "a\x00b\x00", "\x00", "é😀", "\\ud800", '"', "?"]
    for ascii_only in (True, False):
        body = json.dumps({"inputs": {"x": [words]}}, ensure_ascii=ascii_only).encode()
        small, large = both(codec(SPECS["BYTES"]), body)
        assert small == large
        assert large["x"][1] == [[word.encode() for word in words]]
    long = "é\u0000" * (4 * MIB // 4) + "x"
    body = json.dumps({"inputs": {"x": [["a", long, "b"]]}}).encode()
    arrays = codec(SPECS["BYTES"]).from_large_json(body, until=time.monotonic() + 60)
    assert arrays["x"].tolist() == [[b"a", long.encode(), b"b"]]
    for half in (b"\\ud800", b"\\udc00", b"\\ud800\\u0041", b"\\udc00\\ud800"):
        for found in both(codec(SPECS["BYTES"]), b'{"inputs": {"x": [["%s"]]}}' % half):
            assert found == (400, "malformed")


HOSTILE = {
    "unknown names": lambda: (
        b'{"inputs":{"x":[[1,2]],' + b",".join(b'"%07d":1' % i for i in range(1_200_000)) + b"}}"
    ),
    "unknown keys": lambda: b"{" + b",".join(b'"%07d":1' % i for i in range(1_200_000)) + b"}",
    "one name": lambda: b'{"inputs":{"' + b"n" * (15 * MIB) + b'":1}}',
    "numbers": lambda: b'{"inputs":{"x":[[' + b"0," * 7_900_000 + b"0]]}}",
    "rows": lambda: b'{"inputs":{"x":[' + b"[0,0]," * 2_600_000 + b"[0,0]]}}",
    "texts": lambda: b'{"inputs":{"x":[' + b'["",""],' * 1_900_000 + b"[1,2]]}}",
    "depth": lambda: b'{"inputs":{"x":' + b"[" * (15 * MIB),
    "objects": lambda: b'{"a":' * (3 * MIB),
    "one number": lambda: b'{"inputs":{"x":[[' + b"1" * (15 * MIB) + b"]]}}",
    "blanks": lambda: b" " * (15 * MIB),
}


def test_what_does_not_fit_is_refused_at_once_with_few_words() -> None:
    for make in HOSTILE.values():
        body = make()
        reader = codec(SPECS["FP32"])
        tracemalloc.start()
        try:
            with pytest.raises(Problem) as caught:
                reader.from_large_json(body, until=time.monotonic() + 60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert caught.value.status in {400, 413, 422}
        assert len(caught.value.response().body) < 4096
        assert peak < 4 * len(body)


def test_what_fits_takes_less_than_ten_times_its_size() -> None:
    for spec, cell in (
        ("FP64", b"0"),
        ("BYTES", b'""'),
        ("BYTES", b'"abcdefgh"'),
        ("INT8", b"[0,0]"),
    ):
        tensor = SPECS[spec]
        if tensor.datatype != "INT8":
            tensor = TensorSpec("x", tensor.datatype, (1, -1))
        cells = b",".join([cell] * (1023 if tensor.datatype == "INT8" else 200_000))
        body = b'{"inputs":{"x":%s}}' % (
            b"[%s]" % cells if len(cells) < 8000 else b"[[%s]]" % cells
        )
        tracemalloc.start()
        try:
            arrays = codec(tensor).from_large_json(body, until=time.monotonic() + 60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert arrays["x"].size
        assert peak < 10 * len(body) + 256 * 1024


def test_arrays_count_as_they_are_unpacked() -> None:
    body = json.dumps({"inputs": {"x": [0] * 1000}}).encode()
    for limit, found in ((8000, None), (7999, 413)):
        _, large = both(codec(SPECS["FP64"], max_bytes=limit), body)
        assert (large[0] if found else None) == found


def test_an_error_says_where_it_is() -> None:
    reader = codec(TensorSpec("x", "INT8", (-1, 2)))
    for body, pointer in (
        ("[]", ""),
        ('{"inputs": 5}', "/inputs"),
        ("{}", "/inputs"),
        ('{"inputs": {}}', "/inputs/x"),
        ('{"inputs": {"x~/": 1}}', "/inputs/x~0~1"),
        ('{"inputs": {"x": 5}}', "/inputs/x"),
        ('{"inputs": {"x": [[1, 2], 5]}}', "/inputs/x/1"),
        ('{"inputs": {"x": [[1, 2], [3, "a"]]}}', "/inputs/x/1/1"),
        ('{"inputs": {"x": [[1, 2], [3, 400]]}}', "/inputs/x/1/1"),
        ('{"inputs": {"x": [[1, 2], [3.5, 4]]}}', "/inputs/x/1/0"),
    ):
        with pytest.raises(Problem) as caught:
            reader.from_large_json(body.encode(), until=time.monotonic() + 60)
        assert caught.value.errors[0]["pointer"] == pointer, body


def test_it_gives_up_when_it_is_late() -> None:
    with pytest.raises(TimeoutError):
        codec(SPECS["FP32"]).from_large_json(b"{}", until=time.monotonic() - 1)


def test_numbers_keep_every_digit() -> None:
    body = b'{"inputs": {"x": [18446744073709551615, 9007199254740993, 0]}}'
    small, large = both(codec(SPECS["UINT64"]), body)
    assert small == large
    assert large["x"][1] == [2**64 - 1, 9007199254740993, 0]
    body = b'{"inputs": {"x": [100000000000000000000, 0.1, 1e-320]}}'
    small, large = both(codec(SPECS["FP64"]), body)
    assert small == large
    assert large["x"] == (np.dtype("float64"), [1e20, 0.1, 1e-320])
