"""Builds one array out of the events of a JSON parser."""

from __future__ import annotations

from array import array as typed_array
from collections.abc import Iterator
from typing import Any

import numpy as np

from stlab_api.predictor import Array
from stlab_api.problems import Problem, invalid_at
from triton_client.types import TensorSpec

__all__ = ["TensorReader"]

# Types of the module array, which check that a number is an integer within its range.
_INTEGERS = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
_EVENTS = {"BYTES": "string", "BOOL": "boolean"}
_WORDS = {"string": "a valid string", "boolean": "a valid boolean", "number": "a valid number"}


class TensorReader:
    """Reads nested lists into an array.

    Args:
        tensor: What it must be.
        max_rows: The most rows, where the first dimension is variable.

    Attributes:
        name: The tensor's name.
        takes_text: Whether its elements are texts.
        size: The bytes of the array so far; a text counts as a pointer and its bytes.
    """

    def __init__(self, tensor: TensorSpec, max_rows: int) -> None:
        self.name = tensor.name
        self.size = 0
        self._tensor = tensor
        self._max_rows = max_rows
        self.takes_text = tensor.datatype == "BYTES"
        self._event = _EVENTS.get(tensor.datatype, "number")
        self._rank = len(tensor.shape)
        self._depth = 0
        self._lengths = [size if size >= 0 else None for size in tensor.shape]
        self._counts = [0] * self._rank
        self._run = 0
        self._values: list[Any] = []
        self._pieces: list[Array] = []
        self._kept = 0
        self._missing = False

    def take(self, events: Iterator[tuple[str, Any]]) -> bool:
        """Read events up to the end of the tensor, and return whether it was reached.

        Raises:
            Problem: 422: they do not fit.
        """
        wanted, rank, push = self._event, self._rank, self._values.append
        complete = False
        for kind, value in events:
            if kind == wanted and self._depth == rank:
                push(value)
                complete = rank == 0
            elif kind == "start_array" and self._depth < rank:
                self._begin()
            elif kind == "end_array":
                complete = self._end()
            elif kind == "null" and self._depth == 0 and self._tensor.optional:
                complete = self._missing = True
            else:
                raise self._wrong()
            if complete:
                break
        self._keep()
        return complete

    def array(self) -> Array | None:
        """Return the whole array; None if it was null."""
        if self._missing:
            return None
        pieces = self._pieces or [np.empty(0, self._tensor.dtype)]
        lengths = [length or 0 for length in self._lengths]
        return np.concatenate(pieces).reshape(lengths)

    def misfit(self, what: str, offset: int | None = None) -> Problem:
        """Return the problem of an element; by default of the next one."""
        return invalid_at(("inputs", self.name, *self._place(offset)), what)

    def _begin(self) -> None:
        if self._depth:
            axis = self._depth - 1
            length = self._max_rows if axis == 0 and self._tensor.shape[0] < 0 else None
            length = length or self._lengths[axis]
            if length is not None and self._counts[axis] >= length:
                raise self.misfit(f"List should have {length} items at most, and has more")
            self._counts[axis] += 1
        self._depth += 1
        if self._depth == self._rank:
            self._run = self._read
        else:
            self._counts[self._depth - 1] = 0

    def _end(self) -> bool:
        axis = self._depth - 1
        count = self._read - self._run if self._depth == self._rank else self._counts[axis]
        known = self._lengths[axis]
        if known is None:
            most = self._max_rows if axis == 0 else count
            if not 1 <= count <= most:
                raise self.misfit(f"List should have 1 to {max(most, 1)} items, not {count}")
            self._lengths[axis] = count
        elif count != known and self._tensor.shape[axis] < 0:
            raise self.misfit("its rows have different lengths")
        elif count != known:
            raise self.misfit(f"List should have {known} items, not {count}")
        self._depth -= 1
        return self._depth == 0

    @property
    def _read(self) -> int:
        return self._kept + len(self._values)

    def _keep(self) -> None:
        """Turn the collected values into a piece of the array."""
        values = self._values
        length = self._lengths[-1] if self._rank else None
        if self._depth == self._rank > 0 and length is not None and self._read - self._run > length:
            raise self.misfit(f"List should have {length} items, and has more")
        if not values:
            return
        piece = self._piece(values)
        self.size += piece.nbytes + (sum(map(len, piece)) if self.takes_text else 0)
        self._pieces.append(piece)
        self._kept += len(values)
        values.clear()

    def _piece(self, values: list[Any]) -> Array:
        datatype = self._tensor.datatype
        if self.takes_text:
            texts = np.empty(len(values), object)
            texts[:] = [value.encode() for value in values]
            return texts
        if datatype == "BOOL":
            return np.array(values, bool)
        if datatype in _INTEGERS:
            return self._integers(values, _INTEGERS[datatype])
        try:
            wide = np.array(values, np.float64)
        except OverflowError:
            wide = np.array([_float(value) for value in values])
        with np.errstate(over="ignore"):
            piece = wide.astype(self._tensor.dtype)
        finite = np.isfinite(piece)
        if not finite.all():
            raise self.misfit(f"a number is beyond {datatype}", int(finite.argmin()))
        return piece

    def _integers(self, values: list[Any], code: str) -> Array:
        try:
            return np.array(typed_array(code, values), self._tensor.dtype)
        except (TypeError, OverflowError):
            for offset, value in enumerate(values):
                if not isinstance(value, int):
                    raise self.misfit("Input should be a valid integer", offset) from None
                try:
                    typed_array(code, [value])
                except OverflowError:
                    what = f"a number is beyond {self._tensor.datatype}"
                    raise self.misfit(what, offset) from None
            raise

    def _wrong(self) -> Problem:
        if self._depth == self._rank:
            return self.misfit(f"Input should be {_WORDS[self._event]}")
        return self.misfit("Input should be a valid list")

    def _place(self, offset: int | None) -> list[int]:
        """Return the indices of a collected element, or of the next one."""
        if offset is None:
            outer = [count - 1 for count in self._counts[: max(self._depth - 1, 0)]]
            if not self._depth:
                return []
            inner = self._depth == self._rank
            last = self._read - self._run if inner else self._counts[self._depth - 1]
            return [*outer, last]
        place, rest = [], self._kept + offset
        for length in reversed(self._lengths[1:]):
            rest, index = divmod(rest, length) if length else (0, rest)
            place.append(index)
        return [rest, *reversed(place)] if self._rank else []


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
