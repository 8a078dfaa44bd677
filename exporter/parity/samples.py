"""Keeps what a version must answer in its bundle, to be replayed against any server at any time.

``samples.npz`` holds ``<case>/input/<name>``, ``<case>/output/<name>`` and, per output, the budget
of `exporter.parity.tolerances`: ``tolerance/<name>/typical`` per position, and in
``tolerance/<name>/factors`` the relative factor, the share and the floor; where classes count,
``tolerance/<name>/agreement`` is the least part of rows that must agree. Strings are kept as bytes
with their lengths, so that nothing in the file is a pickle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exporter.arrays import read_npz, write_npz
from exporter.errors import ValidationFailedError
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.tolerances import Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from exporter.arrays import Array
    from exporter.parity.evidence import Batching

__all__ = ["load_arrays", "load_samples", "save_reference_set", "save_samples"]

# Beyond this the bundle keeps the first cases only: they are replayed often, and travel far.
MOST_BYTES = 64 * 1024 * 1024
_POOL = "pool"


def save_samples(path: Path, references: ReferenceSet) -> tuple[ReferenceCase, ...]:
    """Write cases, answers and budgets, and return the answers that were kept."""
    kept: list[ReferenceCase] = []
    size = 0
    for answer in references.cases:
        size += _bytes(answer.case.inputs.values()) + _bytes(answer.outputs.values())
        if kept and size > MOST_BYTES:
            break
        kept.append(answer)
    write_npz(path, {**_tolerances(references), **_answers(kept)}, compresslevel=1)
    return tuple(kept)


def save_reference_set(path: Path, references: ReferenceSet) -> None:
    """Write everything that a candidate has to answer, for another process."""
    answers = list(references.cases)
    if references.batch is not None:
        answers.append(replace(references.batch, case=Case(_POOL, references.batch.case.inputs)))
    exact = {
        key: array
        for answer in answers
        for name, values in (answer.float64 or {}).items()
        for key, array in _plain(f"{answer.case.name}/float64/{name}", values).items()
    }
    write_npz(path, {**_tolerances(references), **_answers(answers), **exact}, compresslevel=0)


def load_samples(path: Path, batching: Batching, *, slow: bool = False) -> ReferenceSet:
    """Read what `save_samples` or `save_reference_set` wrote.

    Raises:
        ValidationFailedError: The file is missing or damaged.
    """
    arrays = load_arrays(path)
    tolerances: dict[str, Tolerance | None] = {}
    cases: dict[str, dict[str, dict[str, Array]]] = {}
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
        cases.setdefault(case, {}).setdefault(kind, {})[name] = array
    answers = {
        name: ReferenceCase(Case(name, parts["input"]), parts["output"], parts.get("float64"))
        for name, parts in cases.items()
    }
    for answer in answers.values():
        for name in answer.outputs:
            tolerances.setdefault(name, None)
    pool = answers.pop(_POOL, None)
    return ReferenceSet(tuple(answers.values()), pool, tolerances, batching, slow)


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


def _answers(answers: Iterable[ReferenceCase]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for answer in answers:
        for kind, tensors in (("input", answer.case.inputs), ("output", answer.outputs)):
            for name, array in tensors.items():
                arrays.update(_plain(f"{answer.case.name}/{kind}/{name}", array))
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
