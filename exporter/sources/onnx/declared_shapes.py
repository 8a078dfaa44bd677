"""Corrects sizes that some converters declare wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx

from exporter.arrays import Array, Arrays
from exporter.interface import Interface, Tensor
from exporter.sources.base import InputRejectedError
from exporter.sources.onnx.graphs import graphs_below
from triton_client.types import numpy_dtype

__all__ = ["free_sizes", "sizes_that_vary", "split_shared_symbols", "with_symbols"]

_ROWS = 2  # of an input without an example


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


def sizes_that_vary(
    interface: Interface, example: Arrays | None, run: Callable[[Arrays], Arrays]
) -> dict[tuple[str, int], str]:
    """Return the outputs' axes that declare a fixed size, but have another; with a symbol for each.

    Converters of LightGBM declare a label as ``[1]``, and return one for each row; torch declares
    what follows a recurrent layer with the length of its example.
    """
    fixed = [t for t in interface.outputs if any(isinstance(axis, int) for axis in t.axes)]
    rows = next((str(t.axes[0]) for t in interface.inputs if t.axes), "rows")
    varying: dict[tuple[str, int], str] = {}
    if not fixed:
        return varying
    for answer in _answers_at_other_sizes(interface.inputs, example, run):
        for tensor in fixed:
            shape = answer[tensor.name].shape
            if len(shape) != len(tensor.axes):
                continue
            for index, (axis, size) in enumerate(zip(tensor.axes, shape, strict=True)):
                if isinstance(axis, int) and axis != size:
                    symbol = f"{tensor.name}.{index}" if index else rows
                    varying[tensor.name, index] = symbol
    return varying


def with_symbols(
    tensors: Sequence[Tensor], symbols: Mapping[tuple[str, int], str]
) -> tuple[Tensor, ...]:
    """Return tensors of which some axes have a symbol; see `sizes_that_vary`."""
    return tuple(
        replace(
            t, axes=tuple(symbols.get((t.name, index), axis) for index, axis in enumerate(t.axes))
        )
        for t in tensors
    )


def free_sizes(proto: onnx.ModelProto, symbols: Mapping[tuple[str, int], str]) -> None:
    """Write symbols for sizes of a file's inputs and outputs.

    Sizes of its inner values are left out, since some of them are as wrong; ONNX Runtime infers
    them, and would take the stated ones for the outputs'.
    """
    for value in (*proto.graph.input, *proto.graph.output):
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, index) in symbols:
                dim.Clear()
                dim.dim_param = symbols[value.name, index]
    whole, *inner = graphs_below(proto.graph)
    for value in (*whole.value_info, *(v for g in inner for v in (*g.value_info, *g.output))):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _answers_at_other_sizes(
    inputs: Sequence[Tensor], example: Arrays | None, run: Callable[[Arrays], Arrays]
) -> Iterator[Arrays]:
    """Yield an answer with all variable sizes doubled; else halved; else each one by itself."""
    symbols = sorted({axis for t in inputs for axis in t.axes if isinstance(axis, str)})
    if not symbols:
        return
    for factor in (2.0, 0.5):
        factors = dict.fromkeys(symbols, factor)
        with suppress(InputRejectedError):
            yield run({t.name: _resized(t, example, factors) for t in inputs})
            return
    for symbol in symbols:
        with suppress(InputRejectedError):
            yield run({t.name: _resized(t, example, {symbol: 2.0}) for t in inputs})


def _resized(tensor: Tensor, example: Arrays | None, factors: Mapping[str, float]) -> Array:
    """Return an input of other sizes, with the example's own values repeated."""
    if example is None:
        shape = [a if isinstance(a, int) else _blank(factors.get(a, 1.0)) for a in tensor.axes]
        dtype = numpy_dtype(tensor.datatype)
        return np.full(shape, b"" if dtype.kind == "O" else 0, dtype=dtype)
    given = example[tensor.name]
    for index, axis in enumerate(tensor.axes):
        size = given.shape[index]
        if isinstance(axis, str) and size:
            wanted = max(1, int(size * factors.get(axis, 1.0)))
            given = given.take(np.arange(wanted) % size, axis=index)
    return given


def _blank(factor: float) -> int:
    return max(1, int(_ROWS * factor))
