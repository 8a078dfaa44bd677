"""Inference responses from the bytes of ``ModelInferResponse``, without a copy of the tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from triton_client._result import Result
from triton_client._tensors import decode_tensor
from triton_client.types import numpy_dtype

__all__ = ["decode_answer", "decode_streamed", "tensor_offsets"]

_NO_BUFFERS: Final[Mapping[str, np.ndarray[Any, Any]]] = MappingProxyType({})
_MOST_KEPT_HEAD: Final = 1024  # bytes; what a server sends is not kept without a bound
_MOST_VARINT: Final = 10  # bytes; a longer number is none, and would take ever more time
_OUTPUTS_TAG: Final = 0x2A  # field 5
_RAW_OUTPUT_TAG: Final = 0x32  # field 6
_INFER_RESPONSE_TAG: Final = 0x12  # field 2 of ModelStreamInferResponse
_REST_TAGS: Final = frozenset({0x0A, 0x12, 0x1A, 0x22})  # fields 1 to 4, all length-delimited
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


def decode_answer(
    answer: bytes | memoryview, buffers: Mapping[str, np.ndarray[Any, Any]] = _NO_BUFFERS
) -> Result:
    """Return the outputs of a serialized ``ModelInferResponse``, in the server's order.

    Numeric arrays are read-only views of ``answer``, which they keep alive; they need not be
    aligned, which numpy takes care of.

    Args:
        answer: The message.
        buffers: The arrays in shared memory that outputs were written to, by name.

    Raises:
        ValueError: The message is malformed, or a tensor does not fit its shape.
    """
    fields = _fields(answer)
    if fields is None:
        return _decode_parsed(answer, buffers)
    heads, raws, rest = fields
    if not raws and heads:
        return _decode_parsed(answer, buffers)
    if len(raws) != len(heads):
        raise ValueError(f"the answer has {len(heads)} outputs, but contents for {len(raws)}")
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    for head, (offset, size) in zip(heads, raws, strict=True):
        read = _output_head if len(head) <= _MOST_KEPT_HEAD else _output_head.__wrapped__
        name, datatype, shape = read(head)
        try:
            outputs[name] = (
                _written(buffers[name], datatype, shape)
                if name in buffers
                else decode_tensor(answer, datatype, shape, offset=offset, size=size)
            )
        except ValueError as error:
            raise ValueError(f"output {name!r}: {error}") from error
    return Result.of(outputs, rest)


def tensor_offsets(answer: bytes) -> list[int]:
    """Return where the raw contents of each output begin in an answer; none where they do not."""
    fields = _fields(answer)
    return [] if fields is None else [offset for offset, _ in fields[1]]


def decode_streamed(answer: bytes | memoryview) -> tuple[str, Result]:
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
        return str(response.error_message), Result({})
    return "", decode_answer(response.infer_response.SerializeToString())


def _streamed_answer(answer: bytes | memoryview) -> memoryview | None:
    """Return the inner message where the outer one holds nothing else, without a copy."""
    if not answer or answer[0] != _INFER_RESPONSE_TAG:
        return None
    size, position = _read_varint(answer, 1)
    inner = memoryview(answer)[position:]
    return inner if len(inner) == size else None


def _fields(
    answer: bytes | memoryview,
) -> tuple[list[bytes], list[tuple[int, int]], bytes] | None:
    """Find the outputs' descriptions, each one's offset and size, and the bytes of the rest.

    ``None`` for a message with a field that this code does not know.
    """
    heads: list[bytes] = []
    raws: list[tuple[int, int]] = []
    rest = b""
    position, end = 0, len(answer)
    while position < end:
        start, tag = position, answer[position]
        size, position = _read_varint(answer, position + 1)
        if tag == _RAW_OUTPUT_TAG:
            raws.append((position, size))
        elif tag == _OUTPUTS_TAG:
            heads.append(bytes(answer[position : position + size]))
        elif tag in _REST_TAGS:
            rest += answer[start : position + size]
        else:
            return None
        position += size
    if position != end:
        raise ValueError("the answer is cut short")
    return heads, raws, rest


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
    answer: bytes | memoryview, buffers: Mapping[str, np.ndarray[Any, Any]]
) -> Result:
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
            if output.name in buffers:
                outputs[output.name] = _written(buffers[output.name], output.datatype, shape)
                continue
            outputs[output.name] = (
                decode_tensor(raws[index], output.datatype, shape, offset=0, size=len(raws[index]))
                if raws
                else _typed(output.contents, output.datatype, shape)
            )
        except ValueError as error:
            raise ValueError(f"output {output.name!r}: {error}") from error
    response.ClearField("outputs")
    response.ClearField("raw_output_contents")
    return Result.of(outputs, response.SerializeToString())


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
