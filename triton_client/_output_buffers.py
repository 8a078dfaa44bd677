"""Checks the arrays in shared memory that a caller gives for outputs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from triton_client._inputs import check_outputs
from triton_client._shared_memory import ShmRegistry
from triton_client.types import ModelSpec, TensorSpec, numpy_dtype

__all__ = ["check_output_buffers"]

Array = np.ndarray[Any, Any]


def check_output_buffers(
    spec: ModelSpec,
    outputs: Mapping[str, Array | None],
    shm: ShmRegistry,
    *,
    rows: int | None,
    split: bool,
) -> dict[str, Array]:
    """Return the arrays to write outputs to.

    Args:
        spec: The model's outputs.
        outputs: By name; ``None`` for an output that comes with the response.
        shm: The client's shared memory.
        rows: The rows that are sent; ``None`` where the model does not batch.
        split: They are sent in several requests.

    Raises:
        ValueError: The model has no such output, or it cannot be written to its array.
    """
    check_outputs(spec, list(outputs))
    buffers: dict[str, Array] = {}
    for tensor in spec.outputs:
        array = outputs.get(tensor.name)
        if array is not None:
            _check_array(tensor, array, shm)
            _check_size(tensor, array, rows=rows, split=split)
            buffers[tensor.name] = array
    return buffers


def _check_array(tensor: TensorSpec, array: Array, shm: ShmRegistry) -> None:
    if tensor.datatype == "BYTES":
        raise ValueError(f"output {tensor.name!r} is of strings; give None instead of an array")
    if not isinstance(array, np.ndarray) or array.dtype != numpy_dtype(tensor.datatype):
        found = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(
            f"output {tensor.name!r} needs an array of {tensor.dtype.name}, got {found}"
        )
    if not array.flags.writeable or shm.find(array) is None:
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
            f"output {tensor.name!r} comes in several responses and needs an array of exactly the "
            f"shape {list(shape)}, got {list(array.shape)}"
        )
    if min(shape, default=0) >= 0 and prod(shape) > array.size:
        raise ValueError(
            f"output {tensor.name!r} has the shape {list(shape)}, too large for an array of "
            f"{list(array.shape)}"
        )
