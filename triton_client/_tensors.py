"""One tensor's values to and from the bytes of ``raw_input_contents``.

Numbers are little-endian in row-major order; a string is its length (four bytes, little-endian)
and its bytes. The source is the KServe v2 binary tensor data extension.
"""

from __future__ import annotations

from math import prod
from struct import Struct
from typing import Any, Final

import numpy as np

from triton_client.types import numpy_dtype

__all__ = ["Raw", "decode_tensor", "encode_tensor"]

Raw = bytes | np.ndarray[Any, Any]
"""Bytes, or a contiguous little-endian array that is them."""

_LENGTH: Final = Struct("<I")


def encode_tensor(array: np.ndarray[Any, Any], datatype: str) -> Raw:
    """Return an array's wire form; copies only where the memory is not that already.

    Args:
        array: Values of the data type's dtype, any byte order, any strides; any string dtype, or
            objects that are ``bytes`` or ``str``, for ``BYTES``.
        datatype: The wire data type.

    Raises:
        TypeError: An element of a ``BYTES`` tensor is neither ``bytes`` nor ``str``.
    """
    if datatype == "BYTES":
        return _encode_strings(array)
    dtype = array.dtype
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("<"), order="C")
    elif not array.flags.c_contiguous:
        array = array.copy(order="C")
    if datatype == "BF16":
        # An extension dtype has no code in the buffer protocol.
        return array.view(np.uint16)
    return array


def decode_tensor(
    buffer: bytes | memoryview, datatype: str, shape: tuple[int, ...], *, offset: int, size: int
) -> np.ndarray[Any, Any]:
    """Return the array that a stretch of a message holds.

    Numbers come as a read-only view of ``buffer``, strings as an object array of ``bytes``.

    Raises:
        ValueError: The stretch is shorter or longer than the shape says.
    """
    count = prod(shape)
    if datatype == "BYTES":
        return _decode_strings(bytes(buffer[offset : offset + size]), count).reshape(shape)
    dtype = numpy_dtype(datatype)
    if size != count * dtype.itemsize:
        expected = count * dtype.itemsize
        raise ValueError(f"{datatype}{list(shape)} takes {expected} bytes, {size} came")
    if count == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(buffer, dtype, count, offset).reshape(shape)


def _encode_strings(array: np.ndarray[Any, Any]) -> bytes:
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        if isinstance(item, str):
            text = item.encode()
        elif isinstance(item, bytes | bytearray | memoryview):
            text = bytes(item)
        else:
            raise TypeError(f"a BYTES tensor holds bytes or str, not {type(item).__name__}")
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def _decode_strings(raw: bytes, count: int) -> np.ndarray[Any, Any]:
    position, end = 0, len(raw)
    if not 0 <= count * 4 <= end:
        raise ValueError(f"{count} strings take {count * 4} bytes or more, {end} came")
    array = np.empty(count, object)
    for index in range(count):
        start = position + 4
        if start > end:
            raise ValueError(f"a BYTES tensor ends after {index} of {count} elements")
        position = start + _LENGTH.unpack_from(raw, start - 4)[0]
        if position > end:
            raise ValueError(f"element {index} of a BYTES tensor is cut short")
        array[index] = raw[start:position]
    if position != end:
        raise ValueError(f"a BYTES tensor has {end - position} bytes after its last element")
    return array
