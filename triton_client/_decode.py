"""Inference responses from the bytes of ``ModelInferResponse``, without a copy of the tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from triton_client._result import Result
from triton_client._tensors import decode_tensor
from triton_client.types import numpy_dtype

__all__ = ["decode_answer", "decode_streamed", "tensor_offsets"]

_MOST_KEPT_HEAD: Final = 1024  # bytes; what a server sends is not kept without a bound
_MOST_VARINT: Final = 10  # bytes; a longer number is none, and would take ever more time
_OUTPUTS_TAG: Final = 0x2A  # field 5
_RAW_OUTPUT_TAG: Final = 0x32  # field 6
_LAST_FIELD: Final = 6
_INFER_RESPONSE_TAG: Final = 0x12  # field 2 of ModelStreamInferResponse
_REST_TAGS: Final = frozenset({0x0A, 0x12, 0x1A, 0x22})  # fields 1 to 4, all length-delimited
_OUTPUT: Final = service_pb2.ModelInferResponse.InferOutputTensor
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
    answer: bytes | memoryview, buffers: Mapping[str, np.ndarray[Any, Any]] | None = None
) -> Result:
    """Return the outputs of a serialized ``ModelInferResponse``, in the server's order.

    Numeric arrays are read-only views of ``answer``, which they keep alive; they need not be
    aligned, which numpy takes care of. Outputs that were written to shared memory are taken from
    the arrays there, ``buffers``.

    Raises:
        ValueError: The message is malformed, or a tensor does not fit its shape.
    """
    fields = _fields(answer)
    if fields is None:
        return decode_answer(_without_others(answer), buffers)
    heads, raws, rest = fields
    if raws and len(raws) != len(heads):
        raise ValueError(f"the answer has {len(heads)} outputs, but contents for {len(raws)}")
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    for index, head in enumerate(heads):
        # One with typed contents holds the values, and does not come again.
        is_kept = bool(raws) and len(head) <= _MOST_KEPT_HEAD
        read = _output_head if is_kept else _output_head.__wrapped__
        name, datatype, shape = read(head)
        try:
            if buffers and name in buffers:
                outputs[name] = _written(buffers[name], datatype, shape)
            elif raws:
                offset, size = raws[index]
                outputs[name] = decode_tensor(answer, datatype, shape, offset=offset, size=size)
            else:
                outputs[name] = _typed(head, datatype, shape)
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
    if answer and answer[0] == _INFER_RESPONSE_TAG:
        size, position = _read_varint(answer, 1)
        if position + size == len(answer):  # nothing else, so it need not be copied
            return "", decode_answer(memoryview(answer)[position:])
    response = _parsed(service_pb2.ModelStreamInferResponse, answer)
    if response.error_message:
        return str(response.error_message), Result({})
    return "", decode_answer(response.infer_response.SerializeToString())


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


def _typed(head: bytes, datatype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the values that are inside of an output's description."""
    field = _TYPED_CONTENTS.get(datatype)
    if field is None:
        raise ValueError(f"{datatype} has no typed contents")
    values: Iterable[Any] = getattr(_parsed(_OUTPUT, head).contents, field)
    array = np.array(list(values), dtype=numpy_dtype(datatype)).reshape(shape)
    array.flags.writeable = False
    return array


@lru_cache(maxsize=1024)
def _output_head(head: bytes) -> tuple[str, str, tuple[int, ...]]:
    output = _parsed(_OUTPUT, head)
    return output.name, output.datatype, tuple(output.shape)


def _without_others(answer: bytes | memoryview) -> bytes:
    """Return an answer without the fields that :func:`_fields` does not know."""
    response = _parsed(service_pb2.ModelInferResponse, answer)
    response.DiscardUnknownFields()
    for field, _ in response.ListFields():
        if field.number > _LAST_FIELD:
            response.ClearField(field.name)
    return bytes(response.SerializeToString())


def _parsed(kind: Any, message: bytes | memoryview) -> Any:
    try:
        return kind.FromString(bytes(message))
    except DecodeError as error:
        raise ValueError(f"the answer cannot be read: {error}") from error


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
