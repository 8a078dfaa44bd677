"""Turns a model's interface into what JSON may hold, and JSON into arrays and back.

A request is parsed and checked in one pass, by a pydantic model made of the interface: element
types with their ranges, fixed sizes, and no names that the model does not have.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import orjson
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from exporter.arrays import as_bytes, write_npz
from stlab_api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stlab_api.predictor import Array
    from triton_client.types import ModelSpec, TensorSpec

__all__ = ["Codec", "invalid", "to_json", "to_lists", "to_npz"]

_STRICT = ConfigDict(extra="forbid", strict=True, populate_by_name=False)
# What is told of a wrong request; a caller mends one at a time.
_MOST_ERRORS = 20


class Codec:
    """Reads requests for one model, and writes its answers.

    Args:
        spec: The model's interface.
        max_rows: The most rows in one request.
        max_bytes: The most bytes of the arrays of one request.

    Attributes:
        request: The pydantic model of a JSON request.
    """

    def __init__(self, spec: ModelSpec, *, max_rows: int, max_bytes: int) -> None:
        self.spec = spec
        self._rows = max_rows
        self._bytes = max_bytes
        self._fields = {f"t{i}": tensor for i, tensor in enumerate(spec.inputs)}
        inputs = create_model(
            f"{_title(spec.name)}Inputs",
            __config__=_STRICT,
            **{
                field: (
                    self._type(tensor) | None if tensor.optional else self._type(tensor),
                    Field(None if tensor.optional else ..., alias=tensor.name),
                )
                for field, tensor in self._fields.items()
            },  # type: ignore[call-overload]
        )
        self.request: type[BaseModel] = create_model(
            f"{_title(spec.name)}Request", __config__=_STRICT, inputs=(inputs, ...)
        )

    def from_json(self, body: bytes) -> dict[str, Array]:
        """Return the arrays of a JSON request.

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

    def from_npz(self, body: bytes) -> dict[str, Array]:
        """Return the arrays of a npz; strings in it are of numpy's dtypes ``S`` or ``U``.

        Raises:
            Problem: It is no npz (400), too large (413), or does not fit the model (422).
        """
        try:
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size <= self._bytes:
                with np.load(io.BytesIO(body), allow_pickle=False) as archive:
                    found = {name: _plain_array(archive[name]) for name in archive.files}
        except Exception as error:  # numpy and zipfile raise whatever they stumble on
            # Their words would show what is in it.
            raise Problem(400, "malformed", "the body is no npz of plain arrays") from error
        if size > self._bytes:
            raise Problem(413, "too-large", f"the arrays exceed {self._bytes} bytes")
        known = {tensor.name: tensor for tensor in self.spec.inputs}
        for name in sorted(found.keys() - known):
            raise _misfit(name, f"the model has no input '{name}'; it has {', '.join(known)}")
        for name, tensor in known.items():
            if name not in found:
                if tensor.optional:
                    continue
                raise _misfit(name, "it is missing")
            text = tensor.datatype == "BYTES" and found[name].dtype.kind in "SU"
            if not text and found[name].dtype != tensor.dtype:
                raise _misfit(name, f"it is {found[name].dtype}, and must be {tensor.dtype}")
            if not _fits(found[name].shape, tensor.shape):
                raise _misfit(
                    name,
                    f"its shape is {list(found[name].shape)}, and must be {list(tensor.shape)}",
                )
        # Strings take much more room as objects, so only what fits becomes any.
        return self._checked({name: as_bytes(_text(array)) for name, array in found.items()})

    def _type(self, tensor: TensorSpec) -> Any:
        kind = _element(tensor.datatype)
        for place, size in reversed([*enumerate(tensor.shape)]):
            if size >= 0:
                kind = Annotated[list[kind], Len(size, size)]  # type: ignore[valid-type]
            elif place == 0:
                kind = Annotated[list[kind], Len(1, self._rows)]  # type: ignore[valid-type]
            else:
                kind = Annotated[list[kind], Len(1)]  # type: ignore[valid-type]
        return kind

    def _array(self, values: Any, tensor: TensorSpec) -> Array:
        try:
            with np.errstate(over="raise"):
                array = np.array(values, object if tensor.datatype == "BYTES" else tensor.dtype)
        except (FloatingPointError, OverflowError) as error:
            raise _misfit(tensor.name, f"a number is beyond {tensor.datatype}") from error
        except ValueError as error:
            raise _misfit(tensor.name, "its rows have different lengths") from error
        if not _fits(array.shape, tensor.shape):
            raise _misfit(tensor.name, "its rows have different lengths")
        return as_bytes(array)

    def _checked(self, arrays: dict[str, Array]) -> dict[str, Array]:
        varying = {t.name for t in self.spec.inputs if t.shape and t.shape[0] == -1}
        rows = {len(arrays[name]) for name in varying & arrays.keys()}
        if self.spec.max_batch_size and len(rows) > 1:
            raise Problem(422, "invalid-input", f"the inputs differ in their rows: {sorted(rows)}")
        if rows and not 0 < max(rows) <= self._rows:
            raise Problem(
                422, "too-many-rows", f"a request may have 1 to {self._rows} rows, not {max(rows)}"
            )
        return arrays


def to_json(spec: ModelSpec, outputs: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Return an answer as JSON; NaN and the infinities are null."""
    plain = {tensor.name: _plain(outputs[tensor.name]) for tensor in spec.outputs}
    return orjson.dumps({"model": about, "outputs": plain}, option=orjson.OPT_SERIALIZE_NUMPY)


def to_lists(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays as JSON holds them."""
    plain: dict[str, Any] = orjson.loads(
        orjson.dumps({n: _plain(a) for n, a in arrays.items()}, option=orjson.OPT_SERIALIZE_NUMPY)
    )
    return plain


def to_npz(outputs: Mapping[str, Any]) -> bytes:
    """Return an answer as a npz; strings are of numpy's dtype ``S``."""
    content = io.BytesIO()
    # Not np.savez, which has arguments of its own by name.
    write_npz(content, {n: a.astype("S") if a.dtype.kind == "O" else a for n, a in outputs.items()})
    return content.getvalue()


def invalid(error: ValidationError) -> Problem:
    """Return what a caller is told of a request that does not fit; never what was in it."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found and found[0]["type"] == "json_invalid":
        return Problem(400, "malformed", f"the body is not JSON: {found[0]['msg']}")
    return Problem(
        422,
        "invalid-input",
        f"{_pointer(found[0]['loc']) or 'the request'}: {found[0]['msg']}",
        errors=[
            {"pointer": _pointer(entry["loc"]), "detail": entry["msg"]}
            for entry in found[:_MOST_ERRORS]
        ],
    )


def _pointer(place: tuple[int | str, ...]) -> str:
    return "".join(f"/{str(p).replace('~', '~0').replace('/', '~1')}" for p in place)


def _misfit(name: str, what: str) -> Problem:
    pointer = _pointer(("inputs", name))
    return Problem(
        422,
        "invalid-input",
        f"input '{name}' does not fit the model: {what}",
        errors=[{"pointer": pointer, "detail": what}],
    )


def _element(datatype: str) -> Any:
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return bool
    if datatype.startswith(("FP", "BF")):
        return float
    bits = int(datatype.lstrip("UINT"))
    low, high = (
        (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    return Annotated[int, Field(ge=low, le=high)]


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(
        want in {-1, have} for have, want in zip(found, wanted, strict=True)
    )


def _plain(array: Any) -> Any:
    if array.dtype.kind == "O":
        return np.vectorize(lambda v: bytes(v).decode(errors="replace"), otypes=[object])(
            array
        ).tolist()
    if array.dtype.kind not in "biuf" or array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def _plain_array(entry: Any) -> Array:
    if not isinstance(entry, np.ndarray):
        raise TypeError("an entry of the npz is no array")
    return entry


def _text(array: Any) -> Any:
    return array.astype(object) if array.dtype.kind in "SU" else array


def _title(name: str) -> str:
    # No two names share one: the document has all of them side by side.
    return name.capitalize() if name.isalnum() and name.islower() else f"{name}_"
