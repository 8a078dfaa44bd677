"""The hot messages against the generated protobuf classes, over whatever hypothesis thinks of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from triton_client._decode import decode_answer
from triton_client._encode import RequestEncoder
from triton_client._parameters import RequestOptions
from triton_client.types import DATATYPES, TensorSpec, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

# The same values, lying in memory in another way. Not all of them work on a scalar.
LAYOUTS: list[Callable[[Array], Array]] = [
    lambda x: x,
    lambda x: x.astype(x.dtype.newbyteorder(">")) if x.dtype != ml_dtypes.bfloat16 else x,
    lambda x: x.copy(order="F"),
    lambda x: x[::-1].copy()[::-1] if x.ndim else x,
    lambda x: x.repeat(2, axis=-1)[..., ::2] if x.ndim else x,
]
TYPED = {
    "BOOL": ("bool_contents", st.booleans()),
    "UINT8": ("uint_contents", st.integers(0, 2**8 - 1)),
    "UINT16": ("uint_contents", st.integers(0, 2**16 - 1)),
    "UINT32": ("uint_contents", st.integers(0, 2**32 - 1)),
    "UINT64": ("uint64_contents", st.integers(0, 2**64 - 1)),
    "INT8": ("int_contents", st.integers(-(2**7), 2**7 - 1)),
    "INT16": ("int_contents", st.integers(-(2**15), 2**15 - 1)),
    "INT32": ("int_contents", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("int64_contents", st.integers(-(2**63), 2**63 - 1)),
    "FP32": ("fp32_contents", st.floats(width=32, allow_nan=False)),
    "FP64": ("fp64_contents", st.floats(allow_nan=False)),
    "BYTES": ("bytes_contents", st.binary(max_size=8)),
}
WHOLE = st.integers(-(2**63), 2**63 - 1)
# A field 99 of each kind that a later protocol could have.
UNKNOWN = st.sampled_from(
    [
        b"",
        b"\x98\x06\x01",
        b"\x9a\x06\x02hi",
        b"\x9d\x06abcd",
        b"\x99\x06abcdefgh",
        b"\x9b\x06\x9c\x06",
    ]
)

text = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.lists(text, max_size=4, unique=True)
shapes = st.lists(st.integers(0, 3), max_size=5).map(tuple)
words = st.one_of(st.binary(max_size=6), text)
examples = settings(max_examples=200, derandomize=True, deadline=None, database=None)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Array]:
    """Draw a data type and an array of it, in row-major order."""
    datatype, shape = draw(st.sampled_from(DATATYPES)), draw(shapes)
    count = math.prod(shape)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = draw(st.lists(words, min_size=count, max_size=count)) if count < 20 else b"\0"
    elif datatype == "BOOL":
        array = random.random(count) < 0.5
    else:
        dtype = numpy_dtype(datatype)
        array = np.frombuffer(random.bytes(count * dtype.itemsize), dtype)
    return datatype, array.reshape(shape)


def plain(array: Array) -> Array:
    """Return strings as bytes, as they come back."""
    if array.dtype != object:
        return array
    items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(array.shape)


def raw(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    items = plain(array).ravel().tolist()
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def same(one: Array, other: Array) -> bool:
    return (one.dtype, one.shape, raw(one)) == (other.dtype, other.shape, raw(other))


def set_parameters(message: Any, parameters: dict[str, Any]) -> None:
    fields = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], fields[type(value)], value)


parameters = st.dictionaries(
    text.map(lambda name: f"p{name}"),
    st.one_of(st.booleans(), WHOLE, st.floats(allow_nan=False), text),
    max_size=3,
)


@examples
@given(
    model=text,
    version=text,
    inputs=st.dictionaries(text, st.tuples(tensors(), st.sampled_from(LAYOUTS)), max_size=4),
    outputs=names,
    request_id=text,
    milliseconds=st.none() | st.integers(1, 10**9),
    priority=st.integers(0, 2**64 - 1),
    parameters=parameters,
)
def test_a_request_is_what_protobuf_would_write(
    model: str,
    version: str,
    inputs: dict[str, tuple[tuple[str, Array], Callable[[Array], Array]]],
    outputs: list[str],
    request_id: str,
    milliseconds: int | None,
    priority: int,
    parameters: dict[str, Any],
) -> None:
    expected = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, ((datatype, array), _) in inputs.items():
        expected.inputs.add(name=name, datatype=datatype, shape=array.shape)
        expected.raw_input_contents.append(raw(array))
    for name in outputs:
        expected.outputs.add(name=name)
    if milliseconds is not None:
        expected.parameters["timeout"].int64_param = milliseconds * 1000
    if priority:
        expected.parameters["priority"].uint64_param = priority
    set_parameters(expected, parameters)

    encoder = RequestEncoder(model, version)
    arrays = [
        (TensorSpec(name, datatype, array.shape), layout(array))
        for name, ((datatype, array), layout) in inputs.items()
    ]
    timeout = None if milliseconds is None else milliseconds * 1000 / 1e6
    for _ in range(2):  # the second time from what the first one kept
        parts = encoder.encode(
            arrays,
            outputs,
            RequestOptions(
                request_id=request_id, timeout=timeout, priority=priority, parameters=parameters
            ),
        )
        sent = service_pb2.ModelInferRequest.FromString(b"".join(parts))
        if timeout is not None:  # whole microseconds, give or take one
            found = sent.parameters["timeout"].int64_param
            assert abs(found - milliseconds * 1000) <= 1
            sent.parameters["timeout"].int64_param = milliseconds * 1000
        assert sent == expected


@st.composite
def answers(draw: st.DrawFn) -> tuple[Any, dict[str, Array]]:
    """Draw a ``ModelInferResponse`` with raw or with typed contents, and what it says."""
    response = service_pb2.ModelInferResponse(
        model_name=draw(text), model_version=draw(text), id=draw(text)
    )
    set_parameters(response, draw(parameters))
    outputs: dict[str, Array] = {}
    typed = draw(st.booleans())
    for name in draw(names):
        if typed:
            datatype = draw(st.sampled_from(list(TYPED)))
            field, values = TYPED[datatype]
            shape = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
            count = math.prod(shape)
            items = draw(st.lists(values, min_size=count, max_size=count))
            array = np.array(items, numpy_dtype(datatype)).reshape(shape)
            output = response.outputs.add(name=name, datatype=datatype, shape=shape)
            getattr(output.contents, field).extend(items)
        else:
            datatype, array = draw(tensors())
            output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(raw(array))
        set_parameters(output, draw(parameters))
        outputs[name] = plain(array)
    return response, outputs


@examples
@given(answer=answers(), before=UNKNOWN, behind=UNKNOWN)
def test_an_answer_is_what_protobuf_wrote(
    answer: tuple[Any, dict[str, Array]], before: bytes, behind: bytes
) -> None:
    response, outputs = answer
    message = before + response.SerializeToString() + behind
    for given_as in (message, memoryview(message), memoryview(bytearray(message))):
        decoded = decode_answer(given_as)
        assert list(decoded) == list(outputs)
        for name, array in decoded.items():
            assert same(array, outputs[name])


@examples
@given(answer=answers(), data=st.data())
def test_an_answer_with_its_fields_in_another_order_says_the_same(
    answer: tuple[Any, dict[str, Array]], data: st.DataObject
) -> None:
    response, outputs = answer
    fields: list[bytes] = []
    for field in response.DESCRIPTOR.fields:
        alone = service_pb2.ModelInferResponse()
        values = getattr(response, field.name)
        if field.is_repeated and field.name != "parameters":
            alone_each = [service_pb2.ModelInferResponse(**{field.name: [item]}) for item in values]
            fields.append(b"".join(each.SerializeToString() for each in alone_each))
        else:
            alone.MergeFrom(service_pb2.ModelInferResponse(**{field.name: values}))
            fields.append(alone.SerializeToString())
    decoded = decode_answer(b"".join(data.draw(st.permutations(fields))))
    assert list(decoded) == list(outputs)
    assert all(same(array, outputs[name]) for name, array in decoded.items())


@examples
@given(answer=answers(), behind=UNKNOWN, view=st.booleans(), data=st.data())
def test_an_answer_cut_short_says_nothing_wrong(
    answer: tuple[Any, dict[str, Array]], behind: bytes, view: bool, data: st.DataObject
) -> None:
    response, outputs = answer
    message = response.SerializeToString() + behind
    size = data.draw(st.integers(0, max(0, len(message) - 1)))
    cut = message[:size]
    try:
        decoded = decode_answer(memoryview(cut) if view else cut)
    except ValueError:
        return
    # A cut between two fields leaves a well-formed message, with fewer outputs or none.
    assert list(decoded) == list(outputs)[: len(decoded)]
    assert all(same(array, outputs[name]) for name, array in decoded.items())
    service_pb2.ModelInferResponse.FromString(cut)


@examples
@given(answer=answers(), data=st.data())
def test_an_answer_cut_within_its_tensors_is_refused(
    answer: tuple[Any, dict[str, Array]], data: st.DataObject
) -> None:
    response, _ = answer
    if not any(response.raw_output_contents):
        return
    message = response.SerializeToString()
    head = service_pb2.ModelInferResponse(outputs=response.outputs)
    tensors = sum(map(len, response.raw_output_contents))
    size = data.draw(st.integers(len(message) - tensors, len(message) - 1))
    assert head.ByteSize() < size
    with pytest.raises(ValueError, match=r"\w"):
        decode_answer(message[:size])


@examples
@given(answer=answers(), data=st.data())
def test_a_spoilt_answer_is_read_or_refused_and_nothing_else(
    answer: tuple[Any, dict[str, Array]], data: st.DataObject
) -> None:
    message = bytearray(answer[0].SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if message:
            position = data.draw(st.integers(0, len(message) - 1))
            message[position] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_answer(bytes(message))
    except (ValueError, OverflowError):
        return
    assert all(isinstance(array, np.ndarray) for array in decoded.values())
