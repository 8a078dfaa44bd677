from __future__ import annotations

import pytest

from exporter.commands.export.request import ExportRequest
from exporter.errors import NotFoundError, UsageError, ValidationFailedError
from exporter.interface import Interface, Tensor, unique_names, valid_tensor_name
from exporter.names import artifact_path, model_name, served_version


@pytest.mark.parametrize("name", ["income", "a", "A-b_c.1", "1", "x" * 128])
def test_names_that_are_directories(name: str) -> None:
    assert model_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/a", "a\\b", ".hidden", "-flag", "a b", "a\n", "a\0", "é",
     "x" * 129],
)  # fmt: skip
def test_names_that_never_become_paths(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a model"):
        model_name(name)
    with pytest.raises(UsageError):
        ExportRequest(name, "dev")


@pytest.mark.parametrize(
    ("text", "version"),
    [("1", 1), ("42", 42), ("0", None), ("01", None), ("3.tmp", None), ("-1", None), ("", None),
     ("1\n", None), ("٣", None), ("9" * 19, None)],
)  # fmt: skip
def test_directories_that_are_versions(text: str, version: int | None) -> None:
    assert served_version(text) == version


@pytest.mark.parametrize("name", ["", "/a", "..", "a/../b", "../a", "a\\b", "a\0"])
def test_paths_that_leave_the_artifact(name: str) -> None:
    with pytest.raises(ValidationFailedError, match="outside itself"):
        artifact_path(name)


def test_tensor_names_are_made_valid_and_different() -> None:
    names = unique_names(["a b", "a_b", "", "ok", "x", "x"], "output")
    assert names == ("a_b", "a_b_1", "output", "ok", "x", "x_1")
    assert all(valid_tensor_name(name) for name in names)
    assert not valid_tensor_name("../x")
    assert not valid_tensor_name("")


def test_which_axes_vary() -> None:
    x, fixed, scalar = (
        Tensor("x", "FP32", ("n", 4)),
        Tensor("y", "FP32", (3, "m")),
        Tensor("z", "FP32", ()),
    )
    assert x.shape == (-1, 4)
    assert Interface((x,), (x,)).fixed_leading_axis == ""
    assert (
        Interface((x,), (fixed,)).fixed_leading_axis == "the first axis of output 'y' is fixed at 3"
    )
    assert "scalar" in Interface((scalar,), (x,)).fixed_leading_axis


def test_an_unknown_alias_names_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match=r"'production' .* dev, staging, prod"):
        ExportRequest("net", "production")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "caffe"}, "caffe"),
        ({"precision": "fp7"}, "fp7"),
        ({"batching": "maybe"}, "maybe"),
        ({"max_batch_size": 0}, "at least 1"),
        ({"version": 0}, "at least 1"),
    ],
)
def test_requests_that_make_no_sense(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        ExportRequest(**{"model": "net", "alias": "dev", **options})  # type: ignore[arg-type]
    assert caught.value.hint
