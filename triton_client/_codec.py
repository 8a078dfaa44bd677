"""Inference requests and answers to and from the bytes of the gRPC messages.

The generated classes copy every tensor once more than needed, so the two hot messages are put
together and taken apart here: everything but the tensors is serialized by protobuf once and kept,
the tensors are joined behind it. That is legal because a message is the concatenation of its
fields in any order (protobuf encoding, "Last One Wins" and "Field Order").
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from triton_client._tensors import Raw, decode_tensor, encode_tensor, raw_size
from triton_client.types import TensorSpec, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from triton_client._regions import Reference, Shared

__all__ = [
    "Parameter", "RequestEncoder", "Step", "decode_answer", "decode_streamed", "encode_step",
    "tensor_offsets",
]  # fmt: skip

Parameter = bool | int | float | str
Step = tuple[int | str, bool, bool]
"""A sequence's identifier, and whether a request is its first and its last."""

_NOWHERE: Final[Mapping[str, np.ndarray[Any, Any]]] = MappingProxyType({})
_KEPT_HEADERS: Final = 256
_MOST_KEPT_HEAD: Final = 1024  # bytes; what a server sends is not kept without a bound
_MOST_VARINT: Final = 10  # bytes; a longer number is none, and would take ever more time
_RAW_INPUT_TAG: Final = b"\x3a"  # field 7, length-delimited
_OUTPUTS_TAG: Final = 0x2A  # field 5
_RAW_OUTPUT_TAG: Final = 0x32  # field 6
_INFER_RESPONSE_TAG: Final = 0x12  # field 2 of ModelStreamInferResponse
_SKIPPED_TAGS: Final = frozenset({0x0A, 0x12, 0x1A, 0x22})  # fields 1 to 4, all length-delimited
_TRITONS_OWN: Final = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output"}
)
_PARAMETER_FIELDS: Final = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}
_TYPED_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class RequestEncoder:
    """Makes the bytes of a ``ModelInferRequest`` for one model version.

    Args:
        model: The model's name.
        version: The version; empty where the server chooses.
    """

    __slots__ = ("_headers", "_model", "_version")

    def __init__(self, model: str, version: str) -> None:
        self._model = model
        self._version = version
        self._headers: dict[object, bytes] = {}

    def encode(
        self,
        inputs: Sequence[tuple[TensorSpec, np.ndarray[Any, Any]]],
        outputs: Sequence[str] = (),
        *,
        request_id: str = "",
        timeout: float | None = None,
        priority: int = 0,
        parameters: Mapping[str, Parameter] | None = None,
        sequence: Step | None = None,
        shared: Shared | None = None,
    ) -> tuple[Raw, ...]:
        """Return the request's bytes, in parts: what is not a tensor, and each tensor as it lies.

        Args:
            inputs: Every input with its array, of the input's dtype.
            outputs: The outputs wanted; none means all.
            request_id: Returned by the server and shown in its logs and traces.
            timeout: The longest time in the queue, in seconds.
            priority: Triton's request priority; 0 is the model's default.
            parameters: Further request parameters.
            sequence: The sequence it belongs to, and whether it begins and ends it.
            shared: The inputs and outputs that lie in shared memory.

        Raises:
            TypeError: An element of a ``BYTES`` input is neither ``bytes`` nor ``str``.
            ValueError: A parameter's name is reserved by Triton, or a value is out of range.
        """
        key: tuple[object, ...] = (
            *[(spec.name, array.shape) for spec, array in inputs],
            tuple(outputs),
        )
        if shared is not None:
            key += (tuple(shared.inputs.items()), tuple(shared.outputs.items()))
        header = self._headers.get(key)
        if header is None:
            header = self._header(inputs, outputs, shared)
            if len(self._headers) >= _KEPT_HEADERS:
                self._headers.clear()
            self._headers[key] = header
        parts: list[Raw] = [header]
        if timeout is not None or priority or parameters:
            microseconds = None if timeout is None else max(1, int(timeout * 1e6))
            parts.append(_parameters(microseconds, priority, _typed_items(parameters)))
        if sequence is not None:
            parts.append(encode_step(sequence))
        if request_id:
            parts.append(service_pb2.ModelInferRequest(id=request_id).SerializeToString())
        for spec, array in inputs:
            if shared is not None and spec.name in shared.inputs:
                continue
            raw = encode_tensor(array, spec.datatype)
            size = raw_size(raw)
            parts.append(_raw_head(size))
            if size:
                parts.append(raw)
        return tuple(parts)

    def _header(
        self,
        inputs: Sequence[tuple[TensorSpec, np.ndarray[Any, Any]]],
        outputs: Sequence[str],
        shared: Shared | None,
    ) -> bytes:
        request = service_pb2.ModelInferRequest(model_name=self._model, model_version=self._version)
        for spec, array in inputs:
            tensor = request.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            if shared is not None and spec.name in shared.inputs:
                _refer(tensor, shared.inputs[spec.name])
        for name in outputs:
            tensor = request.outputs.add(name=name)
            if shared is not None and name in shared.outputs:
                _refer(tensor, shared.outputs[name])
        return bytes(request.SerializeToString())


def _refer(tensor: Any, reference: Reference) -> None:
    tensor.parameters["shared_memory_region"].string_param = reference.region
    tensor.parameters["shared_memory_offset"].int64_param = reference.offset
    tensor.parameters["shared_memory_byte_size"].int64_param = reference.nbytes


def decode_answer(
    answer: bytes | memoryview, placed: Mapping[str, np.ndarray[Any, Any]] = _NOWHERE
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the outputs of a serialized ``ModelInferResponse``, in the server's order.

    Numeric arrays are read-only views of ``answer``, which they keep alive; they need not be
    aligned, which numpy takes care of.

    Args:
        answer: The message.
        placed: The arrays in shared memory that outputs were written to, by name.

    Raises:
        ValueError: The message is malformed, or a tensor does not fit its shape.
    """
    fields = _fields(answer)
    if fields is None:
        return _decode_parsed(answer, placed)
    heads, raws = fields
    if not raws and heads:
        return _decode_parsed(answer, placed)
    if len(raws) != len(heads):
        raise ValueError(f"the answer has {len(heads)} outputs, but contents for {len(raws)}")
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    for head, (offset, size) in zip(heads, raws, strict=True):
        read = _output_head if len(head) <= _MOST_KEPT_HEAD else _output_head.__wrapped__
        name, datatype, shape = read(head)
        try:
            outputs[name] = (
                _written(placed[name], datatype, shape)
                if name in placed
                else decode_tensor(answer, datatype, shape, offset=offset, size=size)
            )
        except ValueError as error:
            raise ValueError(f"output {name!r}: {error}") from error
    return outputs


def tensor_offsets(answer: bytes) -> list[int]:
    """Return where the raw contents of each output begin in an answer; none where they do not."""
    fields = _fields(answer)
    return [] if fields is None else [offset for offset, _ in fields[1]]


def decode_streamed(answer: bytes | memoryview) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
    """Return the error message and the outputs of a serialized ``ModelStreamInferResponse``.

    One of them is empty. Arrays are as those of :func:`decode_answer`.

    Raises:
        ValueError: The message is malformed, or a tensor does not fit its shape.
    """
    inner = _streamed_answer(answer)
    if inner is not None:
        return "", decode_answer(inner)
    try:
        response = service_pb2.ModelStreamInferResponse.FromString(bytes(answer))
    except DecodeError as error:
        raise ValueError(f"the answer cannot be read: {error}") from error
    if response.error_message:
        return str(response.error_message), {}
    return "", decode_answer(response.infer_response.SerializeToString())


def _streamed_answer(answer: bytes | memoryview) -> memoryview | None:
    """Return the inner message where the outer one holds nothing else, without a copy."""
    if not answer or answer[0] != _INFER_RESPONSE_TAG:
        return None
    size, position = _read_varint(answer, 1)
    inner = memoryview(answer)[position:]
    return inner if len(inner) == size else None


def _fields(answer: bytes | memoryview) -> tuple[list[bytes], list[tuple[int, int]]] | None:
    """Find the outputs' descriptions, and the offset and size of each one's contents.

    ``None`` for a message with a field that this code does not know.
    """
    heads: list[bytes] = []
    raws: list[tuple[int, int]] = []
    position, end = 0, len(answer)
    while position < end:
        tag = answer[position]
        size, position = _read_varint(answer, position + 1)
        if tag == _RAW_OUTPUT_TAG:
            raws.append((position, size))
        elif tag == _OUTPUTS_TAG:
            heads.append(bytes(answer[position : position + size]))
        elif tag not in _SKIPPED_TAGS:
            return None
        position += size
    if position != end:
        raise ValueError("the answer is cut short")
    return heads, raws


def _written(
    array: np.ndarray[Any, Any], datatype: str, shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Return the part of an array in shared memory that an output was written to."""
    if array.shape == shape and array.dtype == numpy_dtype(datatype):
        return array
    count = prod(shape)
    if array.dtype != numpy_dtype(datatype) or count > array.size:
        raise ValueError(f"{datatype}{list(shape)} came, for an array {array.dtype}{array.shape}")
    return array.reshape(-1)[:count].reshape(shape)


def _decode_parsed(
    answer: bytes | memoryview, placed: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Decode by the generated class: typed contents, and fields that this code does not know."""
    try:
        response = service_pb2.ModelInferResponse.FromString(bytes(answer))
    except DecodeError as error:
        raise ValueError(f"the answer cannot be read: {error}") from error
    raws: Sequence[bytes] = response.raw_output_contents
    if raws and len(raws) != len(response.outputs):
        count = len(response.outputs)
        raise ValueError(f"the answer has {count} outputs, but contents for {len(raws)}")
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    for index, output in enumerate(response.outputs):
        shape = tuple(output.shape)
        try:
            if output.name in placed:
                outputs[output.name] = _written(placed[output.name], output.datatype, shape)
                continue
            outputs[output.name] = (
                decode_tensor(raws[index], output.datatype, shape, offset=0, size=len(raws[index]))
                if raws
                else _typed(output.contents, output.datatype, shape)
            )
        except ValueError as error:
            raise ValueError(f"output {output.name!r}: {error}") from error
    return outputs


def _typed(contents: Any, datatype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    field = _TYPED_CONTENTS.get(datatype)
    if field is None:
        raise ValueError(f"{datatype} has no typed contents")
    values: Iterable[Any] = getattr(contents, field)
    array = np.array(list(values), dtype=numpy_dtype(datatype)).reshape(shape)
    array.flags.writeable = False
    return array


@lru_cache(maxsize=1024)
def _output_head(head: bytes) -> tuple[str, str, tuple[int, ...]]:
    try:
        output = service_pb2.ModelInferResponse.InferOutputTensor.FromString(head)
    except DecodeError as error:
        raise ValueError(f"the answer cannot be read: {error}") from error
    return output.name, output.datatype, tuple(output.shape)


def _typed_items(
    parameters: Mapping[str, Parameter] | None,
) -> tuple[tuple[str, type, Parameter], ...]:
    """Return parameters as a key of a cache; their types belong to it, for 1 == True == 1.0."""
    if not parameters:
        return ()
    return tuple((name, type(value), value) for name, value in parameters.items())


@lru_cache(maxsize=256)
def _parameters(
    timeout: int | None, priority: int, extra: tuple[tuple[str, type, Parameter], ...]
) -> bytes:
    request = service_pb2.ModelInferRequest()
    if timeout is not None:
        request.parameters["timeout"].int64_param = timeout
    if priority:
        request.parameters["priority"].uint64_param = priority
    for name, kind, value in extra:
        if name in _TRITONS_OWN or name.startswith("triton_"):
            raise ValueError(f"the parameter {name!r} is Triton's own")
        field = _PARAMETER_FIELDS.get(kind)
        if field is None:
            raise ValueError(f"the parameter {name!r} is a {kind.__name__}: {value!r}")
        setattr(request.parameters[name], field, value)
    return bytes(request.SerializeToString())


def encode_step(step: Step) -> bytes:
    """Return the fields that make a request a step of a sequence."""
    request = service_pb2.ModelInferRequest()
    identifier, start, end = step
    field = "string_param" if isinstance(identifier, str) else "int64_param"
    setattr(request.parameters["sequence_id"], field, identifier)
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    return bytes(request.SerializeToString())


@lru_cache(maxsize=256)
def _raw_head(size: int) -> bytes:
    return _RAW_INPUT_TAG + _varint(size)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position behind it."""
    value = shift = 0
    for at in range(position, min(len(message), position + _MOST_VARINT)):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise ValueError("the answer is cut short, or no protobuf message")
