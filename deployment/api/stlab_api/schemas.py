"""Derives the schema of requests from a model's interface; turns JSON into arrays and back.

A request is parsed and checked in one pass, by a pydantic model made of the interface: element
types with their ranges, fixed sizes, and no names that the model does not have.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import orjson
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from exporter.arrays import Array, as_bytes
from stlab_api.json_tensors import read_json
from stlab_api.npz import fits, read_npz
from stlab_api.problems import Problem, invalid_at, misfit, pointer_of
from triton_client.types import ModelSpec, TensorSpec

__all__ = ["LARGE_ANSWER", "RequestSchema", "check_finite", "invalid", "to_json", "to_lists"]

_STRICT = ConfigDict(extra="forbid", strict=True, populate_by_name=False)
# The errors that an answer lists; a caller corrects one at a time.
_MOST_ERRORS = 20
# Beyond these, even listing them is slow.
_COUNTED_ERRORS = 2000
# A number that is not finite; most bodies do not match, and are not read again.
_SUSPECT = re.compile(rb"\d[eE]\+?\d{3}|NaN|Infinity|\d{300}")
LARGE_ANSWER = 16 * 1024
"""Elements of an answer that are encoded in a millisecond or two."""


class RequestSchema:
    """Reads requests for one model.

    Attributes:
        request: The pydantic model of a JSON request.
    """

    def __init__(self, spec: ModelSpec, *, max_rows: int, max_bytes: int) -> None:
        self.spec = spec
        self._rows = max_rows
        self._bytes = max_bytes
        self._fields = {f"t{i}": tensor for i, tensor in enumerate(spec.inputs)}
        self._varying = {t.name for t in spec.inputs if t.shape and t.shape[0] == -1}
        fields: dict[str, Any] = {name: self._field(t) for name, t in self._fields.items()}
        # Unique by name: the OpenAPI document shows all models.
        plain = spec.name.isalnum() and spec.name.islower()
        title = spec.name.capitalize() if plain else f"{spec.name}_"
        inputs = create_model(f"{title}Inputs", __config__=_STRICT, **fields)
        self.request: type[BaseModel] = create_model(
            f"{title}Request", __config__=_STRICT, inputs=(inputs, ...)
        )

    def from_json(self, body: bytes) -> dict[str, Array]:
        """Return the arrays of a JSON request, all read in one call.

        Raises:
            Problem: It is not JSON (400), or does not fit the model (422).
        """
        try:
            given = self.request.model_validate_json(body).inputs  # type: ignore[attr-defined]
        except ValidationError as error:
            raise invalid(error) from error
        arrays = {}
        for field, tensor in self._fields.items():
            values = getattr(given, field)
            if values is not None:
                arrays[tensor.name] = self._array(values, tensor)
        return self._checked(arrays)

    def from_large_json(self, body: bytes, *, until: float) -> dict[str, Array]:
        """Return the same as `from_json`, read piece by piece; see `read_json`."""
        tensors, rows, most = self.spec.inputs, self._rows, self._bytes
        return self._checked(read_json(body, tensors, max_rows=rows, max_bytes=most, until=until))

    def from_npz(self, body: bytes) -> dict[str, Array]:
        """Return the arrays of a npz; see `read_npz`."""
        return self._checked(read_npz(body, self.spec.inputs, max_bytes=self._bytes))

    def _field(self, tensor: TensorSpec) -> tuple[Any, Any]:
        kind = _element(tensor)
        for axis, size in reversed([*enumerate(tensor.shape)]):
            most = self._rows if axis == 0 else None
            kind = Annotated[list[kind], Len(size, size) if size >= 0 else Len(1, most)]  # type: ignore[valid-type]
        if tensor.optional:
            return kind | None, Field(None, alias=tensor.name)
        return kind, Field(alias=tensor.name)

    def _array(self, values: Any, tensor: TensorSpec) -> Array:
        try:
            with np.errstate(over="raise"):
                array = np.array(values, object if tensor.datatype == "BYTES" else tensor.dtype)
        except (FloatingPointError, OverflowError) as error:
            place = _overflow_in(values, tensor.dtype)
            what = f"a number is beyond {tensor.datatype}"
            raise invalid_at(("inputs", tensor.name, *place), what) from error
        except ValueError as error:
            raise misfit(tensor.name, "its rows have different lengths") from error
        if not fits(array.shape, tensor.shape):
            raise misfit(tensor.name, "its rows have different lengths")
        return as_bytes(array)

    def _checked(self, arrays: dict[str, Array]) -> dict[str, Array]:
        rows = {len(array) for name, array in arrays.items() if name in self._varying}
        if self.spec.max_batch_size and len(rows) > 1:
            raise Problem(422, "invalid-input", f"the inputs differ in their rows: {sorted(rows)}")
        if rows and not 0 < max(rows) <= self._rows:
            raise Problem(
                422, "too-many-rows", f"a request may have 1 to {self._rows} rows, not {max(rows)}"
            )
        return arrays


def to_json(spec: ModelSpec, outputs: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Return an answer as JSON; NaN and the infinities are null.

    It is written in slices: each call into the encoder takes a millisecond or two.
    """
    parts = [b'{"model":', orjson.dumps(about), b',"outputs":{']
    for place, tensor in enumerate(spec.outputs):
        parts += [b"," if place else b"", orjson.dumps(tensor.name), b":"]
        parts += _sliced(outputs[tensor.name])
    return b"".join([*parts, b"}}"])


def to_lists(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays as nested lists for JSON."""
    plain: dict[str, Any] = orjson.loads(
        orjson.dumps({n: _plain(a) for n, a in arrays.items()}, option=orjson.OPT_SERIALIZE_NUMPY)
    )
    return plain


def _sliced(array: Any) -> Iterator[bytes]:
    if array.size <= LARGE_ANSWER or array.ndim == 0:
        yield orjson.dumps(_plain(array), option=orjson.OPT_SERIALIZE_NUMPY)
        return
    rows = max(1, LARGE_ANSWER * len(array) // array.size)
    yield b"["
    for start in range(0, len(array), rows):
        if start:
            yield b","
        part = array[start : start + rows]
        if part.size > LARGE_ANSWER:  # one row is large by itself
            yield from _sliced(part[0])
        else:
            yield orjson.dumps(_plain(part), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    yield b"]"


def _plain(array: Any) -> Any:
    if array.dtype.kind == "O":
        texts = [bytes(value).decode(errors="replace") for value in array.ravel()]
        return np.array(texts, object).reshape(array.shape).tolist()
    if array.dtype.kind not in "biuf" or array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array.item()


def invalid(error: ValidationError) -> Problem:
    """Return the problem of a request that does not fit, without the request's values."""
    count = error.error_count()
    if count > _COUNTED_ERRORS:
        return Problem(422, "invalid-input", f"the request has {count} errors; see /docs")
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found and found[0]["type"] == "json_invalid":
        return Problem(400, "malformed", f"the body is not JSON: {found[0]['msg']}")
    return Problem(
        422,
        "invalid-input",
        f"{pointer_of(found[0]['loc']) or 'the request'}: {found[0]['msg']}",
        errors=[
            {"pointer": pointer_of(entry["loc"]), "detail": entry["msg"]}
            for entry in found[:_MOST_ERRORS]
        ],
    )


def _element(tensor: TensorSpec) -> Any:
    if tensor.datatype == "BYTES":
        return str
    if tensor.datatype == "BOOL":
        return bool
    if np.issubdtype(tensor.dtype, np.integer):
        limits = np.iinfo(tensor.dtype)
        return Annotated[int, Field(ge=int(limits.min), le=int(limits.max))]
    return Annotated[float, Field(allow_inf_nan=False)]


def _overflow_in(values: Any, dtype: Any) -> tuple[int, ...]:
    """Return the indices of the first number that a type cannot hold."""
    for index, value in enumerate(values if isinstance(values, list) else ()):
        try:
            with np.errstate(over="raise"):
                np.array(value, dtype)
        except (FloatingPointError, OverflowError):
            return (index, *_overflow_in(value, dtype))
        except ValueError:  # rows of different lengths
            continue
    return ()


def check_finite(body: bytes) -> None:
    """Refuse valid JSON with a non-finite number.

    Raises:
        Problem: 422, with its place.
    """
    if not _SUSPECT.search(body):
        return
    try:
        document = json.loads(body)
    except ValueError as error:  # thousands of digits
        raise invalid_at((), "Input should be a finite number") from error
    place = _not_finite(document)
    if place is not None:
        raise invalid_at(place, "Input should be a finite number")


def _not_finite(value: Any) -> tuple[int | str, ...] | None:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return ()
    for key, item in items:
        place = _not_finite(item)
        if place is not None:
            return (key, *place)
    return None
