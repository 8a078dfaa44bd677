"""Keeps cases with the reference's outputs in the bundle, to be replayed against any server.

``samples.npz`` holds ``<case>/input/<name>``, ``<case>/output/<name>`` and, per output, the budget
of `exporter.parity.tolerances`: ``tolerance/<name>/typical`` per position, and in
``tolerance/<name>/factors`` the relative factor, the share and the floor; where classes count,
``tolerance/<name>/agreement`` is the least part of rows that must agree. Strings are kept as bytes
with their lengths, so that nothing in the file is a pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.arrays import Array, as_bytes, read_npz, write_npz
from exporter.errors import ValidationFailedError
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.tolerances import Tolerance

__all__ = ["load_arrays", "load_samples", "save_reference_set", "save_samples"]

# Beyond this the bundle keeps the first cases only: it is copied and replayed often.
MOST_BYTES = 64 * 1024 * 1024
_BATCH = "pool"


def save_samples(path: Path, references: ReferenceSet) -> tuple[ReferenceCase, ...]:
    """Write cases and budgets, and return the cases that were kept."""
    kept: list[ReferenceCase] = []
    size = 0
    for case in references.cases:
        size += sum(array.nbytes for array in (*case.inputs.values(), *case.outputs.values()))
        if kept and size > MOST_BYTES:
            break
        kept.append(case)
    arrays = {**_tolerances(references), **_case_arrays(kept, float64=False)}
    write_npz(path, arrays, compresslevel=1)
    return tuple(kept)


def save_reference_set(path: Path, references: ReferenceSet) -> None:
    """Write all cases and budgets, for another process."""
    cases = list(references.cases)
    if references.batch is not None:
        cases.append(replace(references.batch, case=Case(_BATCH, references.batch.inputs)))
    write_npz(path, {**_tolerances(references), **_case_arrays(cases, float64=True)})


def load_samples(path: Path, batching: Batching, *, slow: bool = False) -> ReferenceSet:
    """Read what `save_samples` or `save_reference_set` wrote.

    Raises:
        ValidationFailedError: The file is missing or damaged.
    """
    arrays = load_arrays(path)
    tolerances: dict[str, Tolerance | None] = {}
    arrays_of: dict[str, dict[str, dict[str, Array]]] = {}
    for key, array in arrays.items():
        if key.startswith("tolerance/"):
            owner, _, part = key.rpartition("/")
            if part == "typical":
                relative, share, floor = arrays[f"{owner}/factors"].tolist()
                agreement = float(arrays.get(f"{owner}/agreement", 0.0))
                tolerance = Tolerance(array, relative, share, floor, agreement)
                tolerances[owner.removeprefix("tolerance/")] = tolerance
            continue
        case, kind, name = key.split("/", 2)
        arrays_of.setdefault(case, {}).setdefault(kind, {})[name] = array
    cases = {
        name: ReferenceCase(Case(name, parts["input"]), parts["output"], parts.get("float64"))
        for name, parts in arrays_of.items()
    }
    for held in cases.values():
        for name in held.outputs:
            tolerances.setdefault(name, None)
    batch = cases.pop(_BATCH, None)
    return ReferenceSet(tuple(cases.values()), batch, tolerances, batching, slow)


def _tolerances(references: ReferenceSet) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, tolerance in references.tolerances.items():
        if tolerance is not None:
            arrays[f"tolerance/{name}/typical"] = tolerance.typical
            arrays[f"tolerance/{name}/factors"] = np.array(
                [tolerance.relative, tolerance.share, tolerance.floor]
            )
            if tolerance.agreement:
                arrays[f"tolerance/{name}/agreement"] = np.array(tolerance.agreement)
    return arrays


def _case_arrays(cases: Iterable[ReferenceCase], *, float64: bool) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for case in cases:
        kinds = {"input": case.inputs, "output": case.outputs}
        if float64 and case.float64 is not None:
            kinds["float64"] = case.float64
        for kind, tensors in kinds.items():
            for name, array in tensors.items():
                arrays |= _plain(f"{case.name}/{kind}/{name}", array)
    return arrays


def load_arrays(path: Path) -> dict[str, Array]:
    """Read an npz without unpickling anything.

    Raises:
        ValidationFailedError: It is missing, damaged or holds pickled objects.
    """
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise ValidationFailedError(
            str(error),
            hint="Write it with numpy.savez and arrays that are not of objects.",
            kind="samples",
        ) from error
    return _with_strings(arrays)


def _plain(key: str, array: Array) -> Mapping[str, Array]:
    if array.dtype.kind != "O":
        return {key: array}
    encoded = as_bytes(array).ravel().tolist()
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
            result[key] = as_bytes(array.astype(object))
        elif not key.endswith("#bytes"):
            result[key] = array
    return result
