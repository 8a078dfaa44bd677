"""What is refused before anything is sent, and what is taken."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from triton_client._inputs import check_inputs, check_outputs
from triton_client._tensors import encode_tensor
from triton_client.types import ModelSpec, TensorSpec, numpy_dtype


def model(*inputs: TensorSpec, batch: int = 0) -> ModelSpec:
    return ModelSpec("m", "1", "", batch, inputs, (TensorSpec("y", "FP32", (-1,)),))


def one(value: object, datatype: str = "FP32", shape: tuple[int, ...] = (-1,)) -> Any:
    return check_inputs(model(TensorSpec("x", datatype, shape)), {"x": value})[0][1]


def test_unknown_missing_and_optional() -> None:
    spec = model(
        TensorSpec("a", "FP32", (1,)),
        TensorSpec("b", "FP32", (1,)),
        TensorSpec("c", "FP32", (1,), True),
    )
    a = np.ones(1, np.float32)
    assert [tensor.name for tensor, _ in check_inputs(spec, {"b": a, "a": a})] == ["a", "b"]
    assert len(check_inputs(spec, {"b": a, "a": a, "c": a})) == 3
    with pytest.raises(ValueError, match="'b' is missing"):
        check_inputs(spec, {"a": a})
    with pytest.raises(ValueError, match="no such input: 'd'; the inputs are 'a', 'b', 'c'"):
        check_inputs(spec, {"a": a, "b": a, "d": a})
    with pytest.raises(ValueError, match="no such input: 'd'"):
        check_inputs(spec, {"d": a})


def test_an_array_of_the_dtype_is_passed_on_untouched() -> None:
    array = np.ones(3, np.float32)
    assert one(array) is array
    assert one(array.astype(">f4")).dtype == np.dtype(">f4")


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("FP32", "f8"),
        ("FP64", "f4"),
        ("INT64", "i4"),
        ("INT32", "u4"),
        ("BOOL", "u1"),
        ("FP32", "U1"),
        ("BYTES", "i4"),
        ("FP16", "bfloat16"),
        ("FP32", "c8"),
        ("FP32", "O"),
    ],
)
def test_nothing_with_a_dtype_is_cast(datatype: str, dtype: str) -> None:
    array = np.zeros(2, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    with pytest.raises(ValueError, match="'x'"):
        one(array, datatype)
    if dtype != "O":  # whose elements are plain Python numbers
        with pytest.raises(ValueError, match="'x'"):
            one([array[0], array[1]], datatype)


def test_numpy_scalars_have_a_dtype() -> None:
    assert one(np.float32(2), "FP32", ()).shape == ()
    with pytest.raises(ValueError, match="float64"):
        one(np.float64(2), "FP32", ())


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([0.1, 1], "FP32"),
        ([0.1], "FP16"),
        ([0.1], "BF16"),
        ([float("nan"), float("inf")], "FP16"),
        ([2**24], "FP32"),
        ([2048], "FP16"),
        ([256], "BF16"),
        ([-128, 127], "INT8"),
        ([2**64 - 1], "UINT64"),
        ([-(2**63)], "INT64"),
        ([True, False], "BOOL"),
        (["a", b"b"], "BYTES"),
        ((1, 2), "INT32"),
        ([], "FP32"),
        ([], "BYTES"),
    ],
)
def test_python_values_take_the_dtype(value: list[Any], datatype: str) -> None:
    array = one(value, datatype)
    assert array.dtype == numpy_dtype(datatype)
    assert array.shape == (len(value),)


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([1e39], "FP32"),
        ([65520.0], "FP16"),
        ([2**24 + 1], "FP32"),
        ([2049], "FP16"),
        ([257], "BF16"),
        ([10**400], "FP64"),
        ([128], "INT8"),
        ([-1], "UINT8"),
        ([2**64], "UINT64"),
        ([1.0], "INT32"),
        ([True], "INT32"),
        ([True], "FP32"),
        ([1], "BOOL"),
        (["1"], "FP32"),
        ([1], "BYTES"),
        ([None], "FP32"),
        ([[1.0], [1.0, 2.0]], "FP32"),
        ({"a": 1}, "FP32"),
        (None, "FP32"),
    ],
)
def test_python_values_that_do_not_fit_are_refused(value: object, datatype: str) -> None:
    with pytest.raises(ValueError, match="'x'"):
        one(value, datatype)


def test_things_that_are_arrays() -> None:
    class WithArray:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.ones(2, np.float32)

    class WithDlpack:
        def __dlpack__(self, **_: Any) -> Any:
            return np.ones(2, np.float32).__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("on the GPU")

    for value in (WithArray(), WithDlpack()):
        assert one(value).tolist() == [1.0, 1.0]
        with pytest.raises(ValueError, match="float32"):
            one(value, "FP64")
    with pytest.raises(ValueError, match="on the GPU"):
        one(Broken())


@pytest.mark.parametrize("shape", [(), (4,), (3, 5), (3, 4, 1), (0, 5)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes the shape \[-1, 4\]"):
        one(np.zeros(shape, np.float32), shape=(-1, 4))


def test_rows_agree_and_are_not_none() -> None:
    spec = model(TensorSpec("a", "FP32", (-1, 1)), TensorSpec("b", "FP32", (-1, 1)), batch=4)
    rows = {size: np.zeros((size, 1), np.float32) for size in (0, 2, 3)}
    assert len(check_inputs(spec, {"a": rows[2], "b": rows[2]})) == 2
    with pytest.raises(ValueError, match="differ in their rows: 'a' 2, 'b' 3"):
        check_inputs(spec, {"a": rows[2], "b": rows[3]})
    with pytest.raises(ValueError, match="at least one row"):
        check_inputs(spec, {"a": rows[0], "b": rows[0]})


def test_outputs() -> None:
    spec = model(TensorSpec("x", "FP32", (1,)))
    assert check_outputs(spec, iter(["y"])) == ("y",)
    with pytest.raises(ValueError, match="no such output: 'z'; the outputs are 'y'"):
        check_outputs(spec, ["z"])
    with pytest.raises(ValueError, match=r"write \['y'\]"):
        check_outputs(spec, "y")


def sent(value: object, shape: tuple[int, ...]) -> bytes:
    raw = encode_tensor(one(value, "BYTES", shape), "BYTES")
    assert isinstance(raw, bytes)
    return raw


def encoded(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_bytes_are_never_changed() -> None:
    """One numpy scalar among them made an array of numpy's text, which cuts zero bytes off."""
    for value in (
        [np.bytes_(b"a\0"), b"b\0\0"],
        [b"a\0", np.bytes_(b"b\0\0")],
        ["a\0", np.str_("b\0\0")],
        (np.str_("a\0"), b"b\0\0"),
        [bytearray(b"a\0"), "b\0\0"],
        np.array([np.bytes_(b"a\0"), "b\0\0"], object),
        np.array(["a\0", "b\0\0"], np.dtypes.StringDType()),
    ):
        assert sent(value, (-1,)) == encoded(b"a\0", b"b\0\0"), value
    for single in (np.bytes_(b"a\0"), np.str_("a\0"), b"a\0", "a\0", bytearray(b"a\0")):
        assert sent(single, ()) == encoded(b"a\0"), single
        assert sent([[single], [single]], (-1, -1)) == encoded(b"a\0", b"a\0")
    objects = np.array([b"a\0"], object)
    assert sent([objects, objects], (-1, -1)) == encoded(b"a\0", b"a\0")
    assert one([np.str_("a\0")], "BYTES").tolist() == ["a\0"]
    with pytest.raises(ValueError, match="differ in their lengths"):
        one([["a"], ["b", "c"]], "BYTES", (-1, -1))
    with pytest.raises(ValueError, match="differ in their depths"):
        one([["a"], "b"], "BYTES", (-1, -1))
    with pytest.raises(ValueError, match="mixes text with float32"):
        one([np.float32(1), "a"], "BYTES")


def test_what_is_masked_cannot_be_sent() -> None:
    masked = np.ma.array([1.0, 2.0], np.float32, mask=[False, True])
    for value in (masked, [masked, masked], (masked,), [[masked]], [np.ma.masked, 1.0]):
        with pytest.raises(ValueError, match=r"replace them: \.filled\(value\)"):
            one(value)
    with pytest.raises(ValueError, match="masked"):
        one(np.ma.array([1.0, 2.0], np.float32))  # nothing is masked, but something may be
    assert one(masked.filled(0)).tolist() == [1.0, 0.0]
