"""Requests and answers like the ones before: what is kept of them never shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from triton_client import errors
from triton_client._decode import decode_answer
from triton_client._failures import Place
from triton_client._parameters import RequestOptions
from triton_client._plan import RequestBuilder
from triton_client._repeats import AnswerReader
from triton_client._shared_memory import ShmRegistry
from triton_client.types import ModelSpec, TensorSpec

SPEC = ModelSpec(
    "m", "1", "", 4,
    (TensorSpec("a", "FP32", (-1, -1)), TensorSpec("b", "FP32", (-1, -1))),
    (TensorSpec("y", "FP32", (-1, -1)), TensorSpec("z", "FP32", (-1, -1))),
)  # fmt: skip


def fresh() -> RequestBuilder:
    return RequestBuilder(Place("s", "m"), SPEC, ShmRegistry())


def requests(builder: RequestBuilder, inputs: Any, **options: Any) -> list[Any]:
    plan = builder.plan(inputs, RequestOptions(**{"timeout": 60.0, **options}))
    return [service_pb2.ModelInferRequest.FromString(call.request) for call in plan.calls]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),
            st.integers(0, 2),
            st.booleans(),
            st.sampled_from([None, ["y"], ("z", "y")]),
            st.sampled_from([None, 1.0, 2.0]),
            st.integers(0, 1),
            st.sampled_from(["C", "F", ">"]),
            st.sampled_from(["", "id"]),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_requests_are_those_of_a_builder_that_has_seen_none(cases: list[Any]) -> None:
    kept = fresh()
    # Each twice and then once more: the third one is made from what was kept.
    for number, case in enumerate(case for case in cases for _ in range(3)):
        rows, columns, backwards, outputs, timeout, priority, layout, request_id = case
        a = np.full((rows, columns), number, np.float32, order="F" if layout == "F" else "C")
        b = a + 1000
        if layout == ">":
            a = a.astype(">f4")
        inputs = {"b": b, "a": a} if backwards else {"a": a, "b": b}
        options = {
            "outputs": outputs, "timeout": timeout, "priority": priority, "request_id": request_id,
        }  # fmt: skip
        assert requests(kept, inputs, **options) == requests(fresh(), inputs, **options)


def test_one_array_for_two_inputs() -> None:
    kept = fresh()
    x = np.ones((1, 2), np.float32)
    for _ in range(3):
        requests(kept, {"a": x, "b": x})
    (request,) = requests(kept, {"a": x, "b": x + 1})
    assert list(request.raw_input_contents) == [x.tobytes(), (x + 1).tobytes()]


def test_what_is_wrong_stays_wrong() -> None:
    kept = fresh()
    x = np.ones((1, 2), np.float32)
    for _ in range(4):
        requests(kept, {"a": x, "b": x})
        for wrong in ({"a": x}, {"a": x, "b": x.astype(np.float64)}, {"a": x, "b": x[0]}):
            with pytest.raises(errors.InvalidInput):
                requests(kept, wrong)
        for outputs in (["no"], [["y"]], "y"):
            with pytest.raises((errors.InvalidInput, TypeError)):
                requests(kept, {"a": x, "b": x}, outputs=outputs)


def test_strings_are_not_kept() -> None:
    spec = ModelSpec("m", "1", "", 0, (TensorSpec("a", "BYTES", (-1,)),), ())
    kept = RequestBuilder(Place("s", "m"), spec, ShmRegistry())
    for word in (b"one", b"two", b"six", b"ten"):
        (request,) = requests(kept, {"a": np.array([word], object)})
        assert request.raw_input_contents[0] == b"\3\0\0\0" + word


def test_a_region_that_was_opened_meanwhile_is_used() -> None:
    class Shared(ShmRegistry):
        def __bool__(self) -> bool:
            return True

        def share(self, inputs: Any, buffers: Any) -> Any:
            shared.append(True)

    shared: list[bool] = []
    kept = fresh()
    x = np.ones((1, 2), np.float32)
    for _ in range(3):
        requests(kept, {"a": x, "b": x})
    kept._shm = Shared()
    requests(kept, {"a": x, "b": x})
    assert shared


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["FP32", "INT64", "BYTES"]),
            st.sampled_from(["y", "longer"]),
            st.sampled_from(["", "id"]),
        ),
        min_size=2,
        max_size=10,
    )
)
def test_answers_are_those_of_a_reader_that_has_seen_none(cases: list[Any]) -> None:
    reader = AnswerReader()
    for number, (rows, datatype, name, request_id) in enumerate(
        case for case in cases for _ in range(3)
    ):
        answer = service_pb2.ModelInferResponse(model_name="m", id=request_id)
        for output in (name, "z"):
            answer.outputs.add(name=output, datatype=datatype, shape=[rows])
            answer.raw_output_contents.append(
                b"\1\0\0\0a" * rows
                if datatype == "BYTES"
                else np.full(rows, number, {"FP32": "f4", "INT64": "i8"}[datatype]).tobytes()
            )
        message = answer.SerializeToString()
        found, expected = reader.read(message), decode_answer(message)
        assert list(found) == list(expected)
        for key, array in expected.items():
            assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[key], array)
            assert array.dtype.hasobject or not found[key].size or not found[key].flags.writeable
