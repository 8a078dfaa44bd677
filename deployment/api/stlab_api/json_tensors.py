"""Reads a large JSON request piece by piece, straight into arrays.

A parser that reads a whole body in one call blocks all other requests, and makes a Python object of
every number first. This one stops at the first value that does not fit the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import ijson

from stlab_api.predictor import Array
from stlab_api.problems import Problem, arrays_too_large, invalid_at, misfit
from stlab_api.tensor_reader import TensorReader
from triton_client.types import TensorSpec

__all__ = ["read_json"]

_PIECE = 16 * 1024
# With every piece the parser reads an incomplete value again from its start, so pieces grow until
# it is complete. Only a text may be so long.
_LONGEST_PIECE = 2 * 1024 * 1024
_LONGEST_TOKEN = 128 * 1024
_BACKEND = ijson.get_backend("yajl2_c")
_INPUTS = "inputs"
_NOT_FINITE = re.compile(r"(char in json text|after the minus sign).*\b(NaN|Infinity)", re.DOTALL)
_ESCAPES = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u([dD][89a-fA-F]..)|.)", re.DOTALL)


def read_json(
    body: bytes, tensors: Sequence[TensorSpec], *, max_rows: int, max_bytes: int, until: float
) -> dict[str, Array]:
    """Return the arrays of a request ``{"inputs": {name: nested lists}}``.

    Args:
        body: The request.
        tensors: The model's inputs.
        max_rows: The most rows.
        max_bytes: The most bytes of all arrays together.
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
    try:
        return _read(body, _Request(tensors, max_rows, max_bytes), until, use_float=True)
    except _BeyondMachineTypes:
        # Decimals, which are slower, tell a number that is too large from one with many digits.
        return _read(body, _Request(tensors, max_rows, max_bytes), until, use_float=False)


class _BeyondMachineTypes(Exception):  # noqa: N818 - it never leaves this module
    """A number is neither a 64-bit integer nor a double."""


def _read(body: bytes, request: _Request, until: float, *, use_float: bool) -> dict[str, Array]:
    events: Any = ijson.sendable_list()
    parser = _BACKEND.basic_parse_coro(events, use_float=use_float)
    start, step, silent = 0, _PIECE, 0
    while start <= len(body):
        if monotonic() > until:
            raise TimeoutError
        piece = body[start : start + step]
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
        request.take(iter(events))
        events.clear()
        if failure is not None and use_float and "overflow" in str(failure):
            raise _BeyondMachineTypes
        if failure is not None:
            raise request.broken(failure) from failure
        if silent > _LONGEST_TOKEN and not request.in_text:
            raise Problem(400, "malformed", f"more than {_LONGEST_TOKEN} bytes without a value")
    return request.arrays()


class _Request:
    """The part of a request that was read so far."""

    def __init__(self, tensors: Sequence[TensorSpec], max_rows: int, max_bytes: int) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._room = max_bytes
        self._open: list[str] = []
        self._key: str | None = None
        self._reader: TensorReader | None = None
        self._found: dict[str, Array] = {}
        self._has_inputs = False

    @property
    def in_text(self) -> bool:
        """Whether the next value may be a text."""
        return self._reader is not None and self._reader.takes_text

    def take(self, events: Iterator[tuple[str, Any]]) -> None:
        """Read the parser's events."""
        while True:
            if self._reader is not None and not self._read(self._reader, events):
                return
            event = next(events, None)
            if event is None:
                return
            self._outside(*event)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of a whole request."""
        if not self._has_inputs:
            raise invalid_at((_INPUTS,), "Field required")
        for name, tensor in self._tensors.items():
            if name not in self._found and not tensor.optional:
                raise invalid_at((_INPUTS, name), "Field required")
        return {name: self._found[name] for name in self._tensors if name in self._found}

    def broken(self, failure: Exception) -> Problem:
        """Return the problem of text that is not JSON, or of a number beyond every type."""
        why = str(failure)
        text = isinstance(failure, ijson.JSONError | UnicodeDecodeError)
        if self._reader is not None and (not text or _NOT_FINITE.search(why)):
            return self._reader.misfit("Input should be a finite number")
        first = why.splitlines()[0] if isinstance(failure, ijson.JSONError) else "it is no UTF-8"
        return Problem(400, "malformed", f"the body is not JSON: {first}")

    def _read(self, reader: TensorReader, events: Iterator[tuple[str, Any]]) -> bool:
        complete = reader.take(events)
        if reader.size > self._room:
            raise arrays_too_large(self._max_bytes)
        if complete:
            array = reader.array()
            if array is not None:
                self._room -= reader.size
                self._found[reader.name] = array
            self._reader = None
        return complete

    def _outside(self, kind: str, value: Any) -> None:
        if kind == "map_key":
            self._name(value)
        elif kind == "end_map":
            self._open.pop()
        elif kind != "start_map":
            raise invalid_at((self._key,) if self._key else (), "Input should be an object")
        elif self._key is not None or not self._open:
            self._open.append(self._key or "")
            self._has_inputs |= self._key == _INPUTS
            self._key = None

    def _name(self, name: str) -> None:
        if self._open == [""]:
            if name != _INPUTS:
                raise invalid_at((name,), "Extra inputs are not permitted")
            self._key = name
            return
        tensor = self._tensors.get(name)
        if tensor is None:
            raise misfit(name, f"the model has no such input; it has {', '.join(self._tensors)}")
        self._reader = TensorReader(tensor, self._max_rows)
