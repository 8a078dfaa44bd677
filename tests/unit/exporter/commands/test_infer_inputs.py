"""Inputs from a file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.commands.infer.inputs import read_inputs
from exporter.errors import UsageError


def written(folder: Path, content: Any, name: str = "x.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("value", [[[1, 2.5], [3, 4]], [["a"], ["b"]], 7, True, "text", []])
def test_json_with_and_without_its_wrapper(tmp_path: Path, value: Any) -> None:
    assert read_inputs(written(tmp_path, {"x": value})) == {"x": value}
    assert read_inputs(written(tmp_path, {"inputs": {"x": value, "y": 1}})) == {"x": value, "y": 1}


def test_an_input_may_be_called_inputs(tmp_path: Path) -> None:
    assert read_inputs(written(tmp_path, {"inputs": [[1.0]]})) == {"inputs": [[1.0]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"x": 1}, {"x": 2}], "a list of objects"),
        ({"inputs": [{"name": "x", "data": [1]}]}, "a list of objects"),
        ([[1, 2]], "no object"),
        ("3", "no object"),
        ({"x": [{"a": 1}]}, "input 'x' holds objects"),
        ({"x": {"a": 1}}, "input 'x' holds objects"),
        ({"x": [1, None]}, "input 'x' holds null"),
        ({"x": None}, "input 'x' holds null"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_json_that_holds_no_inputs(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_inputs(written(tmp_path, content))
    assert caught.value.hint


def test_json_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"x": "\xff"}')
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        read_inputs(path)


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = {"x": np.ones((2, 3), np.float32), "words": np.array(["a", "Zürich"])}
    np.savez(path, **arrays)
    found = read_inputs(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([b"a", None], object))
    with pytest.raises(UsageError, match="allow_pickle=False") as caught:
        read_inputs(path)
    assert ".astype(str)" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{}"])
def test_npz_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as an npz"):
        read_inputs(path)


def test_files_that_are_missing_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_inputs(tmp_path / "x.npz")
    with pytest.raises(UsageError, match=r"not x\.csv"):
        read_inputs(written(tmp_path, "1,2", "x.csv"))
