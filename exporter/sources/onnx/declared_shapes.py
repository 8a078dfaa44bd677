"""Corrects sizes that some converters declare wrongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.interface import Interface, Tensor
from exporter.sources.base import InputRejectedError
from triton_client.types import numpy_dtype

__all__ = ["outputs_with_input_rows", "split_shared_symbols", "with_row_axis"]

_ROWS = 2


def split_shared_symbols(
    inputs: Sequence[Tensor], example: Arrays | None, names: Mapping[str, str]
) -> list[Tensor]:
    """Return the inputs with separate symbols where the example's sizes differ.

    Some converters write the same symbol for sizes that are not the same.
    """
    if example is None:
        return list(inputs)
    sizes: dict[str, set[int]] = {}
    for tensor in inputs:
        for axis, size in zip(tensor.axes, example[names[tensor.name]].shape, strict=True):
            if isinstance(axis, str):
                sizes.setdefault(axis, set()).add(size)
    return [
        replace(
            tensor,
            axes=tuple(
                f"{tensor.name}.{index}" if isinstance(axis, str) and len(sizes[axis]) > 1 else axis
                for index, axis in enumerate(tensor.axes)
            ),
        )
        for tensor in inputs
    ]


def outputs_with_input_rows(
    interface: Interface, example: Arrays | None, run: Callable[[Arrays], Arrays]
) -> frozenset[str]:
    """Return the outputs that declare a fixed number of rows, but have the input's.

    Converters of LightGBM declare a label as ``[1]``, and return one for each row.
    """
    fixed = [t for t in interface.outputs if t.axes and isinstance(t.axes[0], int)]
    rows = [t for t in interface.inputs if t.axes and isinstance(t.axes[0], str)]
    if not fixed or not rows:
        return frozenset()
    try:
        answer = run({t.name: _some_rows(t, example) for t in interface.inputs})
    except InputRejectedError:
        return frozenset()
    return frozenset(
        t.name
        for t in fixed
        if answer[t.name].ndim == len(t.axes) and len(answer[t.name]) == _ROWS != t.axes[0]
    )


def with_row_axis(
    outputs: Sequence[Tensor], names: frozenset[str], symbol: str
) -> tuple[Tensor, ...]:
    """Return outputs of which some have a variable number of rows."""
    return tuple(replace(t, axes=(symbol, *t.axes[1:])) if t.name in names else t for t in outputs)


def _some_rows(tensor: Tensor, example: Arrays | None) -> Array:
    varies = bool(tensor.axes) and isinstance(tensor.axes[0], str)
    if example is not None:
        given = example[tensor.name]
        return given[np.arange(_ROWS) % len(given)] if varies and len(given) else given
    shape = [axis if isinstance(axis, int) else _ROWS for axis in tensor.axes]
    dtype = numpy_dtype(tensor.datatype)
    return np.full(shape, b"" if dtype.kind == "O" else 0, dtype=dtype)
