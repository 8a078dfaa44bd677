"""Arrays: by name in a npz, with nothing in it that is a pickle; and of strings."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Arrays", "as_bytes", "as_text", "read_npz", "write_npz"]

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

_MOST_ENTRIES = 100_000
_MOST_BYTES = 16 * 2**30
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path) -> dict[str, Array]:
    """Read every array of a npz without unpickling anything.

    Raises:
        ValueError: It is missing, damaged or holds pickled objects.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_sizes(archive.zip)
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy, its tokenizer, zipfile and zlib raise whatever they meet
        raise ValueError(
            f"{path.name} cannot be read as an npz of plain arrays: {error}"
        ) from error


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse what unpacks to more memory than a machine should give, before it is unpacked.

    Numpy makes room for the shape that a header says before it reads the values.
    """
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES or sum(e.file_size for e in entries) > _MOST_BYTES:
        raise ValueError(f"it holds more than {_MOST_ENTRIES} arrays or {_MOST_BYTES >> 30} GiB")
    for entry in entries:
        with archive.open(entry) as file:
            major, minor = np.lib.format.read_magic(file)
            read = _HEADERS.get((major, minor))
            if read is None:
                raise ValueError(f"{entry.filename} is of the unknown format {major}.{minor}")
            shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"{entry.filename} holds fewer values than its shape {shape} says")


def write_npz(path: Path | BinaryIO, arrays: Arrays, *, compresslevel: int = 0) -> None:
    """Write arrays that are not of objects: the same arrays, the same bytes."""
    method = zipfile.ZIP_DEFLATED if compresslevel else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method, compresslevel=compresslevel) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            # An entry of 1980: with today's date every bundle would be another one.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), method)


def as_text(values: Array) -> Array:
    """Return strings as ONNX Runtime takes them; anything else as it is."""
    if values.dtype.kind != "O":
        return values
    flat = [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel()]
    return np.fromiter(flat, object, values.size).reshape(values.shape)


def as_bytes(values: Array) -> Array:
    """Return strings as a server sends them; anything else as it is."""
    if values.dtype.kind not in "OU":
        return values
    flat = [v.encode() if isinstance(v, str) else v for v in values.ravel()]
    return np.fromiter(flat, object, values.size).reshape(values.shape)
