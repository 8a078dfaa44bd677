"""One tensor to and from its bytes, with numpy's own bytes and struct as the oracle."""

from __future__ import annotations

import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from triton_client._tensors import decode_tensor, encode_tensor
from triton_client.types import DATATYPES, numpy_dtype

Array = np.ndarray[Any, Any]

SHAPES = [(), (1,), (0,), (3, 0, 2), (2, 3), (1, 2, 3, 4, 2)]
NUMERIC = [datatype for datatype in DATATYPES if datatype != "BYTES"]


def numbers(datatype: str, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    values = np.arange(count) % 2 if datatype == "BOOL" else np.arange(count) % 100
    return values.astype(numpy_dtype(datatype)).reshape(shape)


def as_bytes(raw: Any) -> bytes:
    return b"".join([raw])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("datatype", NUMERIC)
def test_numbers_are_their_little_endian_bytes(datatype: str, shape: tuple[int, ...]) -> None:
    array = numbers(datatype, shape)
    raw = as_bytes(encode_tensor(array, datatype)) if array.size else b""
    assert raw == array.tobytes()
    back = decode_tensor(b"?" + raw, datatype, shape, offset=1, size=len(raw))
    assert (back.dtype, back.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("dtype", [">f4", ">i8", ">u2", ">f2"])
def test_big_endian_is_turned(dtype: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    datatype = {"f4": "FP32", "i8": "INT64", "u2": "UINT16", "f2": "FP16"}[dtype[1:]]
    assert as_bytes(encode_tensor(array, datatype)) == array.astype("<" + dtype[1:]).tobytes()


@pytest.mark.parametrize("datatype", ["FP32", "INT8", "BF16", "BOOL"])
def test_any_strides_are_sent_in_row_order(datatype: str) -> None:
    array = numbers(datatype, (4, 6, 2))
    for view in (array[::2], array[:, ::-1], array.T, np.asfortranarray(array), array[..., 1]):
        assert as_bytes(encode_tensor(view, datatype)) == view.tobytes()


def test_contiguous_memory_is_not_copied() -> None:
    array = np.ones((3, 4), np.float32)
    assert np.shares_memory(encode_tensor(array, "FP32"), array)
    bfloat16 = np.ones(5, ml_dtypes.bfloat16)
    assert np.shares_memory(encode_tensor(bfloat16, "BF16"), bfloat16)


def test_special_floats_survive() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32)
    raw = as_bytes(encode_tensor(array, "FP32"))
    assert decode_tensor(raw, "FP32", (5,), offset=0, size=20).tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_strings_round_trip(shape: tuple[int, ...]) -> None:
    samples = [b"", b"\x00", b"a\x00b\x00", "zür ich 漢字".encode(), b"\xff\xfe", b"x" * 300]
    array = np.empty(int(np.prod(shape)), object)
    for index in range(array.size):
        array[index] = samples[index % len(samples)]
    array = array.reshape(shape)
    raw = as_bytes(encode_tensor(array, "BYTES"))
    assert raw == b"".join(struct.pack("<I", len(item)) + item for item in array.ravel().tolist())
    back = decode_tensor(raw, "BYTES", shape, offset=0, size=len(raw))
    assert (back.dtype, back.shape) == (np.dtype(object), shape)
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "ü"]),
        np.array(["a", "ü"], object),
        np.array([b"a", "ü".encode()]),
        np.array([b"a", "ü"], object),
        np.array([bytearray(b"a"), memoryview("ü".encode())], object),
    ],
    ids=["U", "objects", "S", "mixed", "buffers"],
)
def test_any_kind_of_string_is_sent_as_utf8(array: Array) -> None:
    assert encode_tensor(array, "BYTES") == b"\1\0\0\0a\2\0\0\0\xc3\xbc"


@pytest.mark.parametrize("item", [1, None, 2.5, ["a"]])
def test_other_objects_are_no_strings(item: object) -> None:
    array = np.empty(1, object)
    array[0] = item
    with pytest.raises(TypeError, match="bytes or str"):
        encode_tensor(array, "BYTES")


def test_numbers_come_as_read_only_views() -> None:
    buffer = np.arange(3, dtype=np.float32).tobytes()
    view = decode_tensor(buffer, "FP32", (3,), offset=0, size=12)
    assert not view.flags.writeable
    assert not view.flags.owndata


@pytest.mark.parametrize("size", [0, 4, 11, 16])
def test_numbers_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="takes 12 bytes"):
        decode_tensor(bytes(16), "FP32", (3,), offset=0, size=size)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\1\0\0",
        b"\1\0\0\0",
        b"\1\0\0\0a",
        b"\1\0\0\0a\x05\0\0\0b",
        b"\1\0\0\0a\1\0\0\0bc",
        b"\xff\xff\xff\xff" * 3,
    ],
)
def test_broken_strings_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"strings|BYTES"):
        decode_tensor(raw, "BYTES", (2,), offset=0, size=len(raw))


@pytest.mark.parametrize("shape", [(2**40,), (-1,), (2**20, 2**20)])
def test_an_absurd_shape_takes_no_memory(shape: tuple[int, ...]) -> None:
    for datatype in ("BYTES", "FP32"):
        with pytest.raises(ValueError, match="came"):
            decode_tensor(b"\0\0\0\0", datatype, shape, offset=0, size=4)
