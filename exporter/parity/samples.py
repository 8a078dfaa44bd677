"""Keeps what a version must answer in its bundle, to be replayed against any server at any time.

``samples.npz`` holds ``<case>/input/<name>``, ``<case>/output/<name>`` and, per output,
``tolerance/<name>``: the absolute budget per position with the relative factor in
``tolerance/<name>/relative``. Strings are kept as bytes with their lengths, so that nothing in the
file is a pickle.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from exporter.errors import ValidationFailed
from exporter.parity.evidence import Batching
from exporter.parity.inputs import Case
from exporter.parity.reference import Answer, Truth
from exporter.parity.tolerances import Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from exporter.sources.base import Array

__all__ = ["load_arrays", "load_samples", "save_samples"]

# Beyond this the bundle keeps the first cases only: they are replayed often, and travel far.
MOST_BYTES = 64 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_samples(path: Path, truth: Truth) -> tuple[Answer, ...]:
    """Write cases, answers and budgets, and return the answers that were kept."""
    arrays: dict[str, Array] = {}
    for name, tolerance in truth.tolerances.items():
        if tolerance is not None:
            arrays[f"tolerance/{name}"] = tolerance.absolute
            arrays[f"tolerance/{name}/relative"] = np.array(tolerance.relative)
    kept: list[Answer] = []
    size = 0
    for answer in truth.answers:
        size += _bytes(answer.case.inputs.values()) + _bytes(answer.outputs.values())
        if kept and size > MOST_BYTES:
            break
        kept.append(answer)
        for kind, tensors in (("input", answer.case.inputs), ("output", answer.outputs)):
            for name, array in tensors.items():
                arrays.update(_plain(f"{answer.case.name}/{kind}/{name}", array))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            # A date of its own would make every bundle another one.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())
    return tuple(kept)


def load_samples(path: Path, *, max_batch_size: int) -> Truth:
    """Read what `save_samples` wrote.

    Raises:
        ValidationFailed: The file is missing or damaged.
    """
    arrays = load_arrays(path)
    tolerances: dict[str, Tolerance | None] = {}
    cases: dict[str, tuple[dict[str, Array], dict[str, Array]]] = {}
    for key, array in arrays.items():
        if key.startswith("tolerance/"):
            name = key.removeprefix("tolerance/")
            if f"{key}/relative" in arrays:
                tolerances[name] = Tolerance(array, float(arrays[f"{key}/relative"]))
            continue
        case, kind, name = key.split("/", 2)
        inputs, outputs = cases.setdefault(case, ({}, {}))
        (inputs if kind == "input" else outputs)[name] = array
    for _, outputs in cases.values():
        for name in outputs:
            tolerances.setdefault(name, None)
    return Truth(
        tuple(Answer(Case(name, ins), outs) for name, (ins, outs) in cases.items()),
        None,
        tolerances,
        Batching(max_batch_size),
        slow=False,
    )


def load_arrays(path: Path) -> dict[str, Array]:
    """Read an npz without unpickling anything.

    Raises:
        ValidationFailed: It is missing, damaged or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValidationFailed(
            f"{path.name} cannot be read as an npz of plain arrays: {error}",
            hint="Write it with numpy.savez and arrays that are not of objects.",
            kind="samples",
        ) from error
    return _with_strings(arrays)


def _plain(key: str, array: Array) -> Mapping[str, Array]:
    if array.dtype.kind != "O":
        return {key: array}
    encoded = [v.encode() if isinstance(v, str) else bytes(v) for v in array.ravel()]
    return {
        f"{key}#bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        f"{key}#lengths": np.array([len(v) for v in encoded], np.int64).reshape(array.shape),
    }


def _with_strings(arrays: Mapping[str, Array]) -> dict[str, Array]:
    result: dict[str, Array] = {}
    for key, array in arrays.items():
        if key.endswith("#lengths"):
            name = key.removesuffix("#lengths")
            content = arrays[f"{name}#bytes"].tobytes()
            ends = np.cumsum(array.ravel())
            values = np.empty(array.size, dtype=object)
            values[:] = [
                content[end - length : end] for end, length in zip(ends, array.ravel(), strict=True)
            ]
            result[name] = values.reshape(array.shape)
        elif array.dtype.kind in "US":
            encoded = [
                v.encode() if isinstance(v, str) else bytes(v) for v in array.ravel().tolist()
            ]
            values = np.empty(array.size, dtype=object)
            values[:] = encoded
            result[key] = values.reshape(array.shape)
        elif not key.endswith("#bytes"):
            result[key] = array
    return result


def _bytes(arrays: Iterable[Array]) -> int:
    return sum(array.nbytes for array in arrays)
