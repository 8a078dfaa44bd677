"""Requests and answers as npz: arrays by name in a zip."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.arrays import Array, as_bytes, write_npz
from stlab_api.problems import Problem, arrays_too_large, misfit
from triton_client.types import TensorSpec

__all__ = ["fits", "read_npz", "to_npz"]

_ENTRY = b"PK\x01\x02"
_MOST_ENTRIES = 1000
_SUFFIX = ".npy"
_SLICE = 4096
# A text is a pointer and an object.
_TEXT_BYTES = 8


def read_npz(body: bytes, tensors: Sequence[TensorSpec], *, max_bytes: int) -> dict[str, Array]:
    """Return the arrays of a npz; strings in it are of numpy's dtypes ``S`` or ``U``.

    Raises:
        Problem: It is no npz (400), too large (413), or does not fit the model (422).
    """
    # Reading a zip directory takes far longer than its size suggests.
    if body.count(_ENTRY) > _MOST_ENTRIES:
        raise Problem(400, "malformed", f"the body has more than {_MOST_ENTRIES} entries")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            fit = sum(entry.file_size for entry in entries) <= max_bytes
            found = dict(_read(archive, entry) for entry in entries) if fit else {}
    except Exception as error:  # numpy and zipfile raise errors of many types
        # Their messages would repeat its content.
        raise Problem(400, "malformed", "the body is no npz of plain arrays") from error
    if not fit:
        raise arrays_too_large(max_bytes)
    known = {tensor.name: tensor for tensor in tensors}
    for name in sorted(found.keys() - known):
        raise misfit(name, f"the model has no such input; it has {', '.join(known)}")
    for name, tensor in known.items():
        if name in found:
            _check(found[name], tensor)
        elif not tensor.optional:
            raise misfit(name, "it is missing")
    # Strings take much more memory as objects, so they become objects only if they fit.
    texts = sum(array.size for array in found.values() if array.dtype.kind in "SU")
    if texts * _TEXT_BYTES > max_bytes:
        raise arrays_too_large(max_bytes)
    return {name: _texts(array) for name, array in found.items()}


def to_npz(outputs: Mapping[str, Any]) -> bytes:
    """Return an answer as a npz; strings are of numpy's dtype ``S``.

    Raises:
        Problem: Strings end with a zero byte, which that dtype cuts off.
    """
    content = io.BytesIO()
    # Not np.savez, whose own arguments clash with names of arrays.
    write_npz(content, {name: _plain(name, array) for name, array in outputs.items()})
    return content.getvalue()


def _plain(name: str, array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    if any(item.endswith(b"\0") for item in array.ravel().tolist()):
        raise Problem(
            406,
            "not-acceptable",
            f"output '{name}' has strings that end with a zero byte, which a npz cannot hold; "
            "request JSON with Accept",
        )
    return array.astype("S")


def fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether a shape fits a model's."""
    return len(found) == len(wanted) and all(
        want in {-1, have} for have, want in zip(found, wanted, strict=True)
    )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[str, Array]:
    """Return an entry's name and array; ValueError if it is no plain array."""
    content = archive.read(entry)
    file = io.BytesIO(content)
    form = np.lib.format
    first = form.read_magic(file) == (1, 0)
    read_header = form.read_array_header_1_0 if first else form.read_array_header_2_0
    shape, by_column, dtype = read_header(file)
    # The size that the header claims is allocated only if the bytes exist.
    plain = not dtype.hasobject and entry.filename.endswith(_SUFFIX)
    if not plain or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError("an entry of the npz is no plain array")
    order: Any = "F" if by_column else "C"
    array = np.ndarray(shape, dtype, content[file.tell() :], order=order).copy()
    return entry.filename.removesuffix(_SUFFIX), array


def _check(array: Array, tensor: TensorSpec) -> None:
    text = tensor.datatype == "BYTES" and array.dtype.kind in "SU"
    if not text and array.dtype != tensor.dtype:
        raise misfit(tensor.name, f"it is {array.dtype}, and must be {tensor.dtype}")
    if not fits(array.shape, tensor.shape):
        raise misfit(
            tensor.name, f"its shape is {list(array.shape)}, and must be {list(tensor.shape)}"
        )


def _texts(array: Array) -> Array:
    if array.dtype.kind not in "SU":
        return array
    flat = array.ravel()
    texts = np.empty(flat.size, object)
    for start in range(0, flat.size, _SLICE):
        piece = slice(start, start + _SLICE)
        texts[piece] = as_bytes(flat[piece].astype(object))
    return texts.reshape(array.shape)
