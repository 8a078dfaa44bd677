"""Reads the inputs of one inference from a file: a npz, or JSON.

A ``.npz`` holds an array for each input, of the model's dtype; an array of dtype ``str`` or
``bytes`` is for ``BYTES``. A ``.json`` holds ``{"input": value}`` or ``{"inputs": {"input":
value}}``, where a value is a number, a truth value, a string, or nested lists of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.arrays import read_npz
from exporter.errors import UsageError
from exporter.untrusted import parse_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_inputs"]

_FORM = 'Write {"x": [[1, 2], [3, 4]]}: for each input a list of all rows.'


def read_inputs(path: Path) -> dict[str, Any]:
    """Return the inputs by name, as `triton_client.Model.infer` takes them.

    Raises:
        UsageError: The file is missing, or does not hold inputs.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="Check --input.")
    if path.suffix == ".npz":
        return _from_npz(path)
    if path.suffix == ".json":
        return _from_json(path)
    raise UsageError(
        f"--input is a .npz or a .json, not {path.name}",
        hint="Write a .npz with numpy.savez, one array for each input.",
    )


def _from_npz(path: Path) -> dict[str, Any]:
    try:
        return dict(read_npz(path))
    except ValueError as error:
        raise UsageError(
            str(error),
            hint="Write it with numpy.savez; an array of objects that are strings as "
            ".astype(str), for nothing is unpickled.",
        ) from error


def _from_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} cannot be read as JSON: {error}", hint=_FORM) from error
    # A list of values there is those of an input of that name.
    if (
        isinstance(content, dict)
        and set(content) == {"inputs"}
        and dict in _kinds(content["inputs"])
    ):
        content = content["inputs"]
    if not isinstance(content, dict):
        what = "a list of objects" if dict in _kinds(content) else "no object"
        raise UsageError(f"{path.name} holds {what}, where one with inputs is due", hint=_FORM)
    for name, value in content.items():
        kinds = _kinds(value)
        if dict in kinds:
            raise UsageError(f"{path.name}: input {name!r} holds objects", hint=_FORM)
        if type(None) in kinds:
            raise UsageError(
                f"{path.name}: input {name!r} holds null", hint="A tensor has no gaps; fill them."
            )
    return content


def _kinds(value: object) -> set[type]:
    """Return the types of what nested lists hold."""
    kinds: set[type] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        else:
            kinds.add(type(item))
    return kinds
