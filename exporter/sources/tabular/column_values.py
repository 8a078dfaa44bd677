"""What an estimator knows of its columns as values of the served inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.interface import Tensor
from exporter.sources.known_values import LIMITS, MISSING, UNKNOWN, KnownValues
from triton_client.types import numpy_dtype

__all__ = ["ColumnValues", "known_values"]


class ColumnValues(NamedTuple):
    """Values of one column of an estimator's input; see `KnownValues`."""

    column: int
    kind: str
    values: list[Any]
    counts: Sequence[int] = ()
    known: int = 0


def known_values(
    inputs: Sequence[Tensor], example: Arrays | None, columns: Sequence[ColumnValues]
) -> list[KnownValues]:
    """Return what an estimator knows, and then what a column of any type may hold.

    Args:
        inputs: One matrix ``[rows, n]``, or a tensor ``[rows, 1]`` for every column.
        example: The logged example, or None.
        columns: What the estimator knows; values that no input can hold are left out.
    """
    places = [(tensor, place) for tensor in inputs for place in range(int(tensor.axes[1]))]
    found = [
        *(one for one in columns if one.column < len(places)),
        *_of_any(places, example),
    ]
    result = []
    for one in found:
        tensor, place = places[one.column]
        fitting = [
            (value, count)
            for value, count in zip(
                (_fitting(value, tensor) for value in one.values),
                one.counts or [1] * len(one.values),
                strict=True,
            )
            if value is not None
        ]
        if fitting:
            values, counts = zip(*fitting, strict=True)
            result.append(KnownValues(tensor.name, place, one.kind, values, counts, one.known))
    return result


def _fitting(value: Any, tensor: Tensor) -> Any:
    """Return a value as the tensor holds it; None where it cannot."""
    if tensor.datatype == "BYTES":
        return value.encode() if isinstance(value, str) else None
    if isinstance(value, (str, bytes)):
        return None
    dtype = numpy_dtype(tensor.datatype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        whole = float(value).is_integer() and bounds.min <= value <= bounds.max
        return int(value) if whole else None
    return bool(value) if dtype.kind == "b" else float(value)


def _of_any(places: Sequence[tuple[Tensor, int]], example: Arrays | None) -> Iterator[ColumnValues]:
    for column, (tensor, place) in enumerate(places):
        seen = None if example is None else example[tensor.name][:, place]
        kind = numpy_dtype(tensor.datatype).kind
        if kind == "f":
            yield ColumnValues(column, MISSING, [np.nan])
            yield ColumnValues(column, LIMITS, [0.0, -0.0, 1e-40, *_beyond(seen)])
        elif kind in "iu" and seen is not None and len(seen):
            yield ColumnValues(column, UNKNOWN, [int(seen.max()) + 1, -1])
        elif kind == "O":
            yield ColumnValues(column, UNKNOWN, ["", "?", "É"])


def _beyond(seen: Array | None) -> list[float]:
    """Return numbers beyond both ends of what the example shows."""
    finite = np.array([]) if seen is None else seen[np.isfinite(seen)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if len(finite) else (-1.0, 1.0)
    reach = 4 * max(high - low, abs(low), abs(high), 1e-3)
    return [float(low - reach), float(high + reach)]
