"""Reads a large JSON request piece by piece, straight into arrays.

A parser that reads a whole body in one call blocks all other requests, and makes a Python object of
every number first. This one stops at the first value that does not fit the model.
"""

from __future__ import annotations

import re
from array import array as typed_array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from time import monotonic
from typing import Any

import ijson
import numpy as np

from exporter.arrays import Array
from stlab_api.problems import Problem, arrays_too_large, invalid_at, misfit
from triton_client.types import TensorSpec

__all__ = ["read_json"]

_PIECE = 16 * 1024
# With every piece the parser reads an incomplete value again from its start, so pieces grow until
# it is complete. Only a text may be so long.
_LONGEST_PIECE = 2 * 1024 * 1024
_LONGEST_TOKEN = 128 * 1024
# Values become a piece of an array at this number.
_VALUES = 2048
_BACKEND = ijson.get_backend("yajl2_c")
_NOT_FINITE = re.compile(r"(char in json text|after the minus sign).*\b(NaN|Infinity)", re.DOTALL)
_ESCAPES = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u([dD][89a-fA-F]..)|.)", re.DOTALL)
# Types of the module array, which check that a number is an integer within its range.
_INTEGERS = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
_EVENTS = {"BYTES": "string", "BOOL": "boolean"}


def read_json(
    body: bytes, tensors: Sequence[TensorSpec], *, max_rows: int, max_bytes: int, until: float
) -> dict[str, Array]:
    """Return the arrays of a request ``{"inputs": {name: nested lists}}``.

    Args:
        body: The request.
        tensors: The model's inputs.
        max_rows: The most rows.
        max_bytes: The most bytes of all arrays together; a text is a pointer and its bytes.
        until: The deadline, on the monotonic clock.

    Raises:
        Problem: It is not JSON (400), too large (413), or does not fit the model (422).
        TimeoutError: The deadline passed.
    """
    if any(t.datatype == "BYTES" for t in tensors) and any(
        found[1] for found in _ESCAPES.finditer(body)
    ):
        # The parser would replace it by a question mark.
        raise Problem(400, "malformed", "the body is not JSON: a text has half a surrogate pair")
    known = {tensor.name: tensor for tensor in tensors}
    try:
        arrays = _Request(body, known, max_rows, max_bytes, until, use_float=True).read()
    except _BeyondMachineTypes:
        # Decimals, which are slower, tell a number that is too large from one with many digits.
        arrays = _Request(body, known, max_rows, max_bytes, until, use_float=False).read()
    for name, tensor in known.items():
        if name not in arrays and not tensor.optional:
            raise invalid_at(("inputs", name), "Field required")
    return {name: arrays[name] for name in known if name in arrays}


class _BeyondMachineTypes(Exception):  # noqa: N818 - it never leaves this module
    """A number is neither a 64-bit integer nor a double."""


class _NotFinite(Problem):
    """A number is beyond every type, or none; a tensor adds its place."""


@dataclass
class _Request:
    """Reads the events of a body's JSON."""

    body: bytes
    tensors: Mapping[str, TensorSpec]
    max_rows: int
    max_bytes: int
    until: float
    use_float: bool

    def __post_init__(self) -> None:
        self.events = chain.from_iterable(self._pieces())
        self._size = 0
        self._in_text = False

    def read(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        has_inputs = False
        for key in self._keys(()):
            if key != "inputs":
                raise invalid_at((key,), "Extra inputs are not permitted")
            has_inputs = True
            for name in self._keys((key,)):
                if name not in self.tensors:
                    known = ", ".join(self.tensors)
                    raise misfit(name, f"the model has no such input; it has {known}")
                self._in_text = self.tensors[name].datatype == "BYTES"
                array = _TensorReader(self, self.tensors[name]).read()
                self._in_text = False
                if array is not None:
                    found[name] = array
        if not has_inputs:
            raise invalid_at(("inputs",), "Field required")
        for _ in self.events:  # the parser refuses whatever follows
            pass
        return found

    def grow(self, size: int) -> None:
        """Count the bytes of a piece of an array."""
        self._size += size
        if self._size > self.max_bytes:
            raise arrays_too_large(self.max_bytes)

    def _keys(self, place: tuple[str, ...]) -> Iterator[str]:
        """Iterate over an object; its caller reads the value of every key."""
        if next(self.events)[0] != "start_map":
            raise invalid_at(place, "Input should be an object")
        for kind, key in self.events:
            if kind == "end_map":
                return
            yield key

    def _pieces(self) -> Iterator[Sequence[tuple[str, Any]]]:
        """Iterate over the events of each piece of the body."""
        events: Any = ijson.sendable_list()
        parser = _BACKEND.basic_parse_coro(events, use_float=self.use_float)
        start, step, silent = 0, _PIECE, 0
        while start <= len(self.body):
            if monotonic() > self.until:
                raise TimeoutError
            piece = self.body[start : start + step]
            failure: Exception | None = None
            try:
                if piece:
                    parser.send(piece)
                else:
                    parser.close()
            except (ijson.JSONError, ArithmeticError, ValueError) as error:
                failure = error
            silent = 0 if events else silent + len(piece.strip())
            step = _PIECE if events else min(2 * step, _LONGEST_PIECE)
            start += len(piece) or 1
            yield events
            events.clear()
            if failure is not None:
                raise self._problem(failure) from failure
            if silent > _LONGEST_TOKEN and not self._in_text:
                raise Problem(400, "malformed", f"more than {_LONGEST_TOKEN} bytes without a value")

    def _problem(self, failure: Exception) -> Exception:
        why = str(failure)
        if self.use_float and "overflow" in why:
            return _BeyondMachineTypes()
        text = isinstance(failure, ijson.JSONError | UnicodeDecodeError)
        kind = Problem if text and not _NOT_FINITE.search(why) else _NotFinite
        first = why.splitlines()[0] if isinstance(failure, ijson.JSONError) else "it is no UTF-8"
        return kind(400, "malformed", f"the body is not JSON: {first}")


class _TensorReader:
    """Reads nested lists into an array."""

    def __init__(self, request: _Request, tensor: TensorSpec) -> None:
        self._request = request
        self._events = request.events
        self._tensor = tensor
        self._event = _EVENTS.get(tensor.datatype, "number")
        self._lengths = [size if size >= 0 else None for size in tensor.shape]
        self._place: list[int] = []  # the index in every open list of lists
        self._values: list[Any] = []
        self._pieces: list[Array] = []
        self._kept = 0
        self._first: int | None = None  # which value the open list of values starts with

    def read(self) -> Array | None:
        """Return the array; None if it is null."""
        try:
            kind, value = next(self._events)
            if kind == "null" and self._tensor.optional:
                return None
            if self._lengths:
                self._list(kind, 0)
            elif kind == self._event:
                self._values.append(value)
            else:
                raise self._misfit(f"Input should be a valid {self._event}")
        except _NotFinite as error:
            raise self._misfit("Input should be a finite number") from error
        self._keep()
        pieces = self._pieces or [np.empty(0, self._tensor.dtype)]
        return np.concatenate(pieces).reshape([length or 0 for length in self._lengths])

    def _list(self, kind: str, axis: int) -> None:
        """Read a list that begins with this event, and check its length."""
        if kind != "start_array":
            raise self._misfit("Input should be a valid list")
        innermost = axis + 1 == len(self._lengths)
        count = self._list_of_values() if innermost else self._list_of_lists(axis)
        known = self._lengths[axis]
        if known is None:
            most = self._request.max_rows if axis == 0 else count
            if not 1 <= count <= most:
                raise self._misfit(f"List should have 1 to {max(most, 1)} items, not {count}")
            self._lengths[axis] = count
        elif count != known and self._tensor.shape[axis] < 0:
            raise self._misfit("its rows have different lengths")
        elif count != known:
            raise self._misfit(f"List should have {known} items, not {count}")
        self._first = None
        if not innermost:
            self._place.pop()

    def _list_of_lists(self, axis: int) -> int:
        most = self._lengths[axis]
        if axis == 0 and most is None:
            most = self._request.max_rows
        self._place.append(0)
        for kind, _ in self._events:
            if kind == "end_array":
                break
            if self._place[-1] == most:
                raise self._misfit(f"List should have {most} items at most, and has more")
            self._list(kind, axis + 1)
            self._place[-1] += 1
        return self._place[-1]

    def _list_of_values(self) -> int:
        self._first = self._read
        wanted, push, length = self._event, self._values.append, self._lengths[-1]
        while True:
            for kind, value in islice(self._events, _VALUES):
                if kind == wanted:
                    push(value)
                elif kind == "end_array":
                    count = self._read - self._first
                    if len(self._values) >= _VALUES:
                        self._keep()
                    return count
                else:
                    raise self._misfit(f"Input should be a valid {wanted}")
            if length is not None and self._read - self._first > length:
                raise self._misfit(f"List should have {length} items, and has more")
            self._keep()

    @property
    def _read(self) -> int:
        """The number of values so far."""
        return self._kept + len(self._values)

    def _keep(self) -> None:
        """Turn the collected values into a piece of the array."""
        if self._values:
            piece = self._piece(self._values)
            text = sum(map(len, piece)) if self._tensor.datatype == "BYTES" else 0
            self._request.grow(piece.nbytes + text)
            self._pieces.append(piece)
            self._kept += len(self._values)
            self._values.clear()

    def _piece(self, values: list[Any]) -> Array:
        datatype = self._tensor.datatype
        if datatype == "BYTES":
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
            raise self._misfit_of(int(finite.argmin()), f"a number is beyond {datatype}")
        return piece

    def _integers(self, values: list[Any], code: str) -> Array:
        try:
            return np.array(typed_array(code, values), self._tensor.dtype)
        except (TypeError, OverflowError):
            for offset, value in enumerate(values):
                if not isinstance(value, int):
                    raise self._misfit_of(offset, "Input should be a valid integer") from None
                try:
                    typed_array(code, [value])
                except OverflowError:
                    what = f"a number is beyond {self._tensor.datatype}"
                    raise self._misfit_of(offset, what) from None
            raise

    def _misfit(self, what: str) -> Problem:
        """Return the problem of the next element."""
        last = [] if self._first is None else [self._read - self._first]
        return invalid_at(("inputs", self._tensor.name, *self._place, *last), what)

    def _misfit_of(self, offset: int, what: str) -> Problem:
        """Return the problem of a collected value."""
        place, rest = [], self._kept + offset
        for length in reversed(self._lengths[1:]):
            rest, index = divmod(rest, length) if length else (0, rest)
            place.append(index)
        place += [rest] if self._lengths else []
        return invalid_at(("inputs", self._tensor.name, *reversed(place)), what)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
