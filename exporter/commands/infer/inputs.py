"""Read the inputs of an inference from a npz or JSON file.

A ``.npz`` holds an array for each input, of the model's dtype; an array of dtype ``str`` or
``bytes`` is for ``BYTES``. A ``.json`` holds ``{"input": value}`` or ``{"inputs": {"input":
value}}``; a value is a number, a boolean, a string, or nested lists of these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.arrays import read_npz
from exporter.bounded_text import parse_json
from exporter.errors import UsageError

__all__ = ["read_inputs"]

_FORM = 'Write {"x": [[1, 2], [3, 4]]}: for each input a list of its rows.'


def read_inputs(path: Path) -> dict[str, Any]:
    """Return the inputs by name, for `triton_client.Model.infer`.

    Raises:
        UsageError: The file is missing, or does not hold inputs.
    """
    if not path.is_file():
        raise UsageError(f"file {path} does not exist", hint="Check --input.")
    if path.suffix == ".npz":
        try:
            return dict(read_npz(path))
        except ValueError as error:
            raise UsageError(
                str(error),
                hint="Write it with numpy.savez; convert an array of strings with .astype(str), "
                "since nothing is unpickled.",
            ) from error
    if path.suffix == ".json":
        return _from_json(path)
    raise UsageError(
        f"--input must be a .npz or a .json, not {path.name}",
        hint="Write a .npz with numpy.savez, one array for each input.",
    )


def _from_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} cannot be read as JSON: {error}", hint=_FORM) from error
    # Without an object inside, "inputs" is the name of an input.
    if (
        isinstance(content, dict)
        and set(content) == {"inputs"}
        and dict in _kinds(content["inputs"])
    ):
        content = content["inputs"]
    if not isinstance(content, dict):
        what = "a list of objects" if dict in _kinds(content) else "no object"
        raise UsageError(
            f"{path.name} holds {what} instead of one object with the inputs", hint=_FORM
        )
    for name, value in content.items():
        kinds = _kinds(value)
        if dict in kinds:
            raise UsageError(f"{path.name}: input {name!r} holds objects", hint=_FORM)
        if type(None) in kinds:
            raise UsageError(
                f"{path.name}: input {name!r} holds null",
                hint="A tensor has no missing values; fill them.",
            )
    return content


def _kinds(value: object) -> set[type]:
    """Return the types of the items of nested lists."""
    kinds: set[type] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        else:
            kinds.add(type(item))
    return kinds
