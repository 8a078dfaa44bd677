"""The result of an inference, and its outputs as JSON, as a table row and for a npz."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.arrays import Array
from exporter.commands.result import CommandResult
from exporter.errors import UsageError
from triton_client.types import wire_datatype

__all__ = ["InferResult", "described", "plain", "storable"]

FIRST = 5


@dataclass(frozen=True, slots=True)
class InferResult(CommandResult):
    """The result of `infer`.

    Attributes:
        model: The model.
        version: The requested version, or the newest one that is served.
        seconds: Seconds of the request.
        outputs: The output arrays by name.
    """

    model: str = ""
    version: int | None = None
    seconds: float | None = None
    outputs: Mapping[str, Array] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """See `CommandResult.content`."""
        return {
            "model": self.model,
            "version": self.version,
            "seconds": self.seconds,
            "outputs": {
                name: {
                    "datatype": wire_datatype(array.dtype),
                    "shape": list(array.shape),
                    "data": plain(array),
                }
                for name, array in self.outputs.items()
            },
        }


def plain(array: Array) -> Any:
    """Return an array as nested lists for JSON.

    Non-finite numbers are ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, as in protobuf's JSON.
    Bytes are text if they are UTF-8, else ``{"base64": "..."}``.
    """
    if array.dtype.kind == "O":
        return _each(array.tolist(), _text)
    if array.dtype.kind in "biu":
        return array.tolist()
    numbers = array.astype(np.float64)
    values = numbers.tolist()
    return values if np.isfinite(numbers).all() else _each(values, _number)


def described(name: str, array: Array) -> tuple[str, ...]:
    """Return a table row of an output: name, type, shape, first values, min, mean, max."""
    first = array.reshape(-1)[:FIRST]
    if array.dtype.kind == "O":
        values = [repr(_decoded(item)) for item in first]
    elif array.dtype.kind in "biu":
        values = [str(item) for item in first.tolist()]
    else:
        values = [f"{item:.6g}" for item in first.astype(np.float64).tolist()]
    if array.size > FIRST:
        values.append("…")
    shape = f"[{', '.join(map(str, array.shape))}]"
    return name, wire_datatype(array.dtype), shape, " ".join(values), *_range(array)


def storable(name: str, array: Array) -> Array:
    """Return an output for a npz: strings as ``str`` or ``bytes``, BF16 as FP32.

    Raises:
        UsageError: Strings end with a zero byte, which numpy would strip.
    """
    if wire_datatype(array.dtype) == "BF16":
        return array.astype(np.float32)
    if array.dtype.kind != "O":
        return array
    items = array.reshape(-1).tolist()
    if any(item.endswith(b"\0") for item in items):
        raise UsageError(
            f"output {name!r} has strings that end with a zero byte, which a npz cannot hold",
            hint="Omit --output, and use --json.",
        )
    texts = [_decoded(item) for item in items]
    if all(isinstance(text, str) for text in texts):
        items = texts
    return np.array(items, dtype=None if items else str).reshape(array.shape)


def _range(array: Array) -> tuple[str, str, str]:
    if array.dtype.kind in "bO" or array.size == 0:
        return "", "", ""
    if array.dtype.kind not in "iu":
        array = array.astype(np.float64)
    with np.errstate(all="ignore"):
        found = array.min(), array.mean(dtype=np.float64), array.max()
    low, mean, high = (f"{item.item():.6g}" for item in found)
    return low, mean, high


def _each(value: Any, leaf: Callable[[Any], Any]) -> Any:
    return [_each(item, leaf) for item in value] if isinstance(value, list) else leaf(value)


def _number(value: float) -> float | str:
    if np.isfinite(value):
        return value
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(value: bytes) -> str | dict[str, str]:
    text = _decoded(value)
    return text if isinstance(text, str) else {"base64": base64.b64encode(text).decode()}


def _decoded(value: bytes) -> str | bytes:
    """Return the text of bytes that are UTF-8, else the bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
