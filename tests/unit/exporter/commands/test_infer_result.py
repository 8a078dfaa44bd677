"""Answers for machines, for people and for a npz."""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from exporter.commands.infer.result import InferResult, described, plain, storable
from exporter.errors import NotFoundError, UsageError


def words(*values: bytes) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_the_object_has_the_same_keys_in_every_case() -> None:
    fine = InferResult("m", 1, 0.5, {"y": np.float32([[1, math.nan]])}).as_dict()
    assert fine["outputs"] == {"y": {"datatype": "FP32", "shape": [1, 2], "data": [[1.0, "NaN"]]}}
    assert fine["error"] is None
    failed = InferResult("m").failed(NotFoundError("no", hint="yes"))
    assert failed.exit_code == 4
    assert failed.as_dict().keys() == fine.keys()
    assert failed.as_dict()["error"] == {"kind": "not_found", "message": "no", "hint": "yes"}


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.float64([math.inf, -math.inf, 0.1]), ["Infinity", "-Infinity", 0.1]),
        (np.float16([[math.nan], [1]]), [["NaN"], [1.0]]),
        (np.float32(math.nan).reshape(()), "NaN"),
        (np.array([1.5], ml_dtypes.bfloat16), [1.5]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        (np.array([True, False]), [True, False]),
        (np.zeros((2, 0), np.float32), [[], []]),
        (words("Zürich".encode(), b"\xff"), ["Zürich", {"base64": "/w=="}]),
    ],
)
def test_every_value_is_valid_json(array: np.ndarray[Any, Any], expected: Any) -> None:
    assert plain(array) == expected
    json.dumps(plain(array), allow_nan=False)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (
            np.arange(6, dtype=np.float32).reshape(2, 3),
            ("FP32", "[2, 3]", "0 1 2 3 4 …", "0", "2.5", "5"),
        ),
        (np.array([7, 9], np.int64), ("INT64", "[2]", "7 9", "7", "8", "9")),
        (np.array([True]), ("BOOL", "[1]", "True", "", "", "")),
        (np.zeros((0, 2), np.float16), ("FP16", "[0, 2]", "", "", "", "")),
        (np.float32([math.nan, math.inf]), ("FP32", "[2]", "nan inf", "nan", "nan", "nan")),
        (np.array([2, 4], ml_dtypes.bfloat16), ("BF16", "[2]", "2 4", "2", "3", "4")),
        (np.full(3, 60_000, np.float16), ("FP16", "[3]", "60000 60000 60000", *["60000"] * 3)),
        (words("é".encode(), b"\xff"), ("BYTES", "[2]", "'é' b'\\xff'", "", "", "")),
    ],
)
def test_a_row_for_people(array: np.ndarray[Any, Any], expected: tuple[str, ...]) -> None:
    assert described("y", array) == ("y", *expected)


def test_what_a_npz_can_hold() -> None:
    text = storable("y", words("Zürich".encode(), b"").reshape(2, 1))
    assert (text.dtype.kind, text.tolist()) == ("U", [["Zürich"], [""]])
    raw = storable("y", words(b"\xff", b"a"))
    assert (raw.dtype.kind, raw.tolist()) == ("S", [b"\xff", b"a"])
    assert storable("y", words()).dtype.kind == "U"
    assert storable("y", np.array([1.5], ml_dtypes.bfloat16)).dtype == np.float32
    numbers = np.arange(3)
    assert storable("y", numbers) is numbers
    with pytest.raises(UsageError, match="zero byte"):
        storable("y", words(b"a\0"))
