"""The hot messages, with the generated protobuf classes as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from triton_client._decode import decode_answer
from triton_client._encode import RequestEncoder
from triton_client._parameters import RequestOptions
from triton_client.types import DATATYPES, TensorSpec, numpy_dtype

Array = np.ndarray[Any, Any]
Response = service_pb2.ModelInferResponse


def spec(name: str, array: Array, datatype: str) -> tuple[TensorSpec, Array]:
    return TensorSpec(name, datatype, array.shape), array


def some(datatype: str, shape: tuple[int, ...]) -> Array:
    if datatype == "BYTES":
        return np.full(shape, b"a\x00b", object)
    return np.ones(shape, numpy_dtype(datatype))


def raw(array: Array) -> bytes:
    if array.dtype == object:
        return b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel())
    return array.tobytes()


@pytest.mark.parametrize("shape", [(), (0, 4), (1,), (2, 3), (1, 40_000)])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_request_is_what_protobuf_reads(datatype: str, shape: tuple[int, ...]) -> None:
    array = some(datatype, shape)
    encoder = RequestEncoder("income", "7")
    second = np.arange(3, dtype=np.int64)
    inputs = [spec("x", array, datatype), spec("ünd", second, "INT64")]
    for _ in range(2):  # the second time from the kept header
        request = encoder.encode(
            inputs,
            ("y", "z"),
            RequestOptions(
                request_id="id-1",
                timeout=1.5,
                priority=2,
                parameters={"flag": True, "steps": -3, "rate": 0.5, "mode": "fast"},
            ),
        )
        expected = service_pb2.ModelInferRequest(model_name="income", model_version="7", id="id-1")
        expected.inputs.add(name="x", datatype=datatype, shape=shape)
        expected.inputs.add(name="ünd", datatype="INT64", shape=[3])
        expected.outputs.add(name="y")
        expected.outputs.add(name="z")
        expected.parameters["timeout"].int64_param = 1_500_000
        expected.parameters["priority"].uint64_param = 2
        expected.parameters["flag"].bool_param = True
        expected.parameters["steps"].int64_param = -3
        expected.parameters["rate"].double_param = 0.5
        expected.parameters["mode"].string_param = "fast"
        expected.raw_input_contents.extend([raw(array), second.tobytes()])
        assert service_pb2.ModelInferRequest.FromString(b"".join(request)) == expected


def test_kept_headers_are_distinguished() -> None:
    encoder = RequestEncoder("m", "")
    for shape in [(1, 2), (2, 1), (1, 2)]:
        for outputs in [(), ("y",)]:
            array = np.zeros(shape, np.float32)
            parsed = service_pb2.ModelInferRequest.FromString(
                b"".join(encoder.encode([spec("x", array, "FP32")], outputs))
            )
            assert tuple(parsed.inputs[0].shape) == shape
            assert tuple(output.name for output in parsed.outputs) == outputs


def test_parameters_of_equal_value_keep_their_types() -> None:
    encoder = RequestEncoder("m", "")
    for value, field in [(1, "int64_param"), (True, "bool_param"), (1.0, "double_param")]:
        parsed = service_pb2.ModelInferRequest.FromString(
            b"".join(encoder.encode([], (), RequestOptions(parameters={"p": value})))
        )
        assert parsed.parameters["p"].WhichOneof("parameter_choice") == field


@pytest.mark.parametrize("name", ["timeout", "priority", "sequence_id", "triton_final_response"])
def test_tritons_own_parameters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Triton's own"):
        RequestEncoder("m", "").encode([], (), RequestOptions(parameters={name: 1}))


def test_many_shapes_do_not_pile_up() -> None:
    encoder = RequestEncoder("m", "")
    for rows in range(1000):
        encoder.encode([spec("x", np.zeros((rows, 1), np.int8), "INT8")])
    assert len(encoder._headers) <= 256


def answer(*outputs: tuple[str, str, Array]) -> Any:
    response = Response(model_name="income", model_version="7", id="id-1")
    response.parameters["sequence_end"].bool_param = True
    for name, datatype, array in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(raw(array))
    return response


@pytest.mark.parametrize("shape", [(), (0, 4), (1,), (2, 3), (1, 40_000)])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_answer_is_what_protobuf_wrote(datatype: str, shape: tuple[int, ...]) -> None:
    array = some(datatype, shape)
    other = np.arange(5, dtype=np.int16)
    for order in (1, -1):
        outputs = [("y", datatype, array), ("z", "INT16", other)][::order]
        decoded = decode_answer(answer(*outputs).SerializeToString())
        assert list(decoded) == [name for name, _, _ in outputs]
        assert (decoded["y"].dtype, decoded["y"].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(decoded["y"], array)
        np.testing.assert_array_equal(decoded["z"], other)


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-1, 2]),
        ("INT32", "int_contents", [-1, 2]),
        ("INT64", "int64_contents", [-1, 2**62]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 255]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, -1.0]),
        ("FP64", "fp64_contents", [0.1, -1.0]),
        ("BYTES", "bytes_contents", [b"", b"a\0"]),
    ],
)
def test_typed_contents(datatype: str, field: str, values: list[Any]) -> None:
    response = Response()
    output = response.outputs.add(name="y", datatype=datatype, shape=[2, 1])
    getattr(output.contents, field).extend(values)
    decoded = decode_answer(response.SerializeToString())["y"]
    assert decoded.dtype == numpy_dtype(datatype)
    assert decoded.tolist() == [[value] for value in values]


def test_fields_of_a_later_protocol_are_skipped() -> None:
    message = answer(("y", "INT8", np.ones(3, np.int8))).SerializeToString()
    for unknown in (b"\x98\x06\x01", b"\x9a\x06\x02hi"):  # field 99, a varint and a string
        assert decode_answer(message + unknown)["y"].tolist() == [1, 1, 1]


def test_no_outputs_at_all() -> None:
    assert decode_answer(b"") == {}
    assert decode_answer(Response(model_name="m").SerializeToString()) == {}


def test_every_cut_is_noticed() -> None:
    array = np.arange(4, dtype=np.float32)
    whole = answer(("y", "FP32", array), ("z", "FP32", array)).SerializeToString()
    for size in range(1, len(whole)):
        try:
            decoded = decode_answer(whole[:size])
        except ValueError:
            continue
        # A cut between two fields leaves a well-formed message, but never one with outputs.
        assert decoded == {}, size


@pytest.mark.parametrize(
    "change",
    [
        lambda response: response.raw_output_contents.append(b""),
        lambda response: response.raw_output_contents.pop(),
        lambda response: response.outputs.add(name="w", datatype="FP32", shape=[1]),
        lambda response: response.outputs[0].shape.append(2),
        lambda response: setattr(response.outputs[0], "datatype", "FP8"),
        lambda response: setattr(response.outputs[0], "datatype", "FP64"),
    ],
    ids=["surplus contents", "missing contents", "surplus output", "shape", "type", "width"],
)
def test_contradictions_are_refused(change: Any) -> None:
    array = np.ones(3, np.float32)
    response = answer(("y", "FP32", array), ("z", "FP32", array))
    change(response)
    with pytest.raises(ValueError, match=r"outputs|output 'y'"):
        decode_answer(response.SerializeToString())


@pytest.mark.parametrize(
    "message", [b"\xff", b"\x32", b"\x2a\xff\xff", b"\x07", b"\x2a\x02\xff\xff"]
)
def test_garbage_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|cannot be read|outputs"):
        decode_answer(message)
