"""Whether outputs can be written to the arrays that a caller gives for them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_client._inputs import check_outputs
from triton_client.types import ModelSpec, TensorSpec, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_client._regions import Regions

__all__ = ["check_placed"]

Array = np.ndarray[Any, Any]


def check_placed(
    spec: ModelSpec,
    outputs: Mapping[str, Array | None],
    regions: Regions,
    *,
    rows: int | None,
    split: bool,
) -> dict[str, Array]:
    """Return the arrays to write outputs to.

    Args:
        spec: What the model gives.
        outputs: By name; ``None`` for an output that comes with the answer.
        regions: The client's shared memory.
        rows: The rows that are sent; ``None`` where the model does not batch.
        split: They are sent in several requests.

    Raises:
        ValueError: There is no such output, or it cannot be written to its array.
    """
    check_outputs(spec, list(outputs))
    placed: dict[str, Array] = {}
    for tensor in spec.outputs:
        array = outputs.get(tensor.name)
        if array is not None:
            _check_array(tensor, array, regions)
            _check_size(tensor, array, rows=rows, split=split)
            placed[tensor.name] = array
    return placed


def _check_array(tensor: TensorSpec, array: Array, regions: Regions) -> None:
    if tensor.datatype == "BYTES":
        raise ValueError(f"output {tensor.name!r} is of strings; give None instead of an array")
    if not isinstance(array, np.ndarray) or array.dtype != numpy_dtype(tensor.datatype):
        found = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(
            f"output {tensor.name!r} needs an array of {tensor.dtype.name}, got {found}"
        )
    if not array.flags.writeable or regions.find(array) is None:
        raise ValueError(
            f"output {tensor.name!r} needs a writable, contiguous array in open shared memory of "
            "this client; make it with its empty()"
        )


def _check_size(tensor: TensorSpec, array: Array, *, rows: int | None, split: bool) -> None:
    shape = tensor.shape if rows is None else (rows, *tensor.shape[1:])
    if split and (
        array.ndim != len(shape)
        or any(dim not in (-1, size) for dim, size in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(
            f"output {tensor.name!r} comes in several answers and needs an array of exactly the "
            f"shape {list(shape)}, got {list(array.shape)}"
        )
    if min(shape, default=0) >= 0 and prod(shape) > array.size:
        raise ValueError(
            f"output {tensor.name!r} has the shape {list(shape)}, too large for an array of "
            f"{list(array.shape)}"
        )
