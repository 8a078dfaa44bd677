"""A caller's inputs as arrays of exactly the model's dtypes and shapes, and arrays for outputs.

Nothing that has a dtype is ever cast. Python's own numbers have none, and take the input's as
numpy's weak scalars do (NEP 50): a float is rounded to the input's precision, an integer may become
a float that equals it, and anything that overflows or changes its kind is rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, Final

import numpy as np

from triton_client._shared_memory import ShmRegistry
from triton_client.types import ModelSpec, TensorSpec, numpy_dtype, wire_datatype

__all__ = ["check_inputs", "check_output_buffers", "check_outputs"]

Array = np.ndarray[Any, Any]

_TEXT: Final = frozenset({str, bytes, bytearray})
_UNTYPED: Final = _TEXT | {bool, int, float}
_ALLOWED: Final[dict[str, frozenset[type]]] = {
    "BYTES": _TEXT,
    "BOOL": frozenset({bool}),
    **dict.fromkeys(("FP16", "FP32", "FP64", "BF16"), frozenset({int, float})),
}
"""Python's types that a data type takes; the other ones take integers."""
_NUMPY_TEXT: Final[dict[type, type]] = {np.bytes_: bytes, np.str_: str}


def check_inputs(spec: ModelSpec, inputs: Mapping[str, object]) -> list[tuple[TensorSpec, Array]]:
    """Return the inputs as arrays, in the model's order.

    Args:
        spec: What the model takes.
        inputs: By name: numpy arrays, anything with ``__array__`` or ``__dlpack__``, Python
            numbers, booleans and strings, and nested lists of these.

    Raises:
        ValueError: An input is unknown, missing, or has the wrong dtype, shape or batch.
    """
    arrays: list[tuple[TensorSpec, Array]] = []
    for tensor in spec.inputs:
        if tensor.name in inputs:
            array = _as_array(tensor, inputs[tensor.name])
            _check_shape(tensor, array)
            arrays.append((tensor, array))
        elif not tensor.optional:
            _check_names("input", spec.inputs, inputs)
            raise ValueError(f"input {tensor.name!r} is missing; it takes {tensor}")
    if len(arrays) != len(inputs):
        _check_names("input", spec.inputs, inputs)
    if spec.max_batch_size:
        _check_batch(arrays)
    return arrays


def check_outputs(spec: ModelSpec, outputs: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the outputs to return.

    Raises:
        ValueError: The model has no such output.
    """
    if isinstance(outputs, Mapping):
        raise ValueError("outputs is a list of names here; only infer writes into arrays")  # noqa: TRY004
    if isinstance(outputs, str):
        raise ValueError(f"outputs is a list of names; write [{outputs!r}]")  # noqa: TRY004
    names = tuple(outputs)
    _check_names("output", spec.outputs, names)
    return names


def check_output_buffers(
    spec: ModelSpec,
    outputs: Mapping[str, Array | None],
    shm: ShmRegistry,
    *,
    rows: int | None,
    split: bool,
) -> dict[str, Array]:
    """Return the arrays to write outputs to; ``None`` is for one that comes with the response.

    ``rows`` are those that are sent, in one or several requests; ``None`` where the model does not
    batch.

    Raises:
        ValueError: The model has no such output, or it cannot be written to its array.
    """
    check_outputs(spec, list(outputs))
    buffers: dict[str, Array] = {}
    for tensor in spec.outputs:
        array = outputs.get(tensor.name)
        if array is not None:
            _check_buffer(tensor, array, shm)
            _check_buffer_size(tensor, array, rows=rows, split=split)
            buffers[tensor.name] = array
    return buffers


def _check_names(kind: str, tensors: Iterable[TensorSpec], names: Iterable[str]) -> None:
    known = [tensor.name for tensor in tensors]
    unknown = ", ".join(repr(name) for name in names if name not in known)
    if unknown:
        listed = ", ".join(map(repr, known)) or "none"
        raise ValueError(f"no such {kind}: {unknown}; the {kind}s are {listed}")


def _as_array(tensor: TensorSpec, value: object) -> Array:
    array: Array
    if type(value) is np.ndarray:
        array = value
    else:
        leaves = set(_leaf_types(value))
        if any(issubclass(leaf, np.ma.MaskedArray | np.ma.core.MaskedConstant) for leaf in leaves):
            raise ValueError(
                f"input {tensor.name!r} is a masked array, and masked values cannot be sent; "
                "replace them: .filled(value)"
            )
        if leaves <= _UNTYPED:
            return _from_python(tensor, value, leaves)
        if leaves & _TEXT:
            found = _names(leaves - _TEXT)
            raise ValueError(f"input {tensor.name!r} mixes text with {found}")
        if isinstance(value, list | tuple) or hasattr(value, "__array__"):
            convert: Any = np.asarray
        elif hasattr(value, "__dlpack__"):
            convert = np.from_dlpack
        else:
            raise ValueError(
                f"input {tensor.name!r} takes {tensor.datatype}, not a {type(value).__name__}"
            )
        try:
            array = convert(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise ValueError(f"input {tensor.name!r} cannot be made an array: {error}") from error
    _check_dtype(tensor, array)
    return array


def _check_dtype(tensor: TensorSpec, array: Array) -> None:
    if array.dtype == numpy_dtype(tensor.datatype):
        return
    try:
        datatype = wire_datatype(array.dtype)
    except ValueError as error:
        raise ValueError(f"input {tensor.name!r}: {error}") from None
    if datatype == tensor.datatype:
        return
    found = array.dtype.name
    if tensor.datatype == "BYTES" or datatype == "BYTES":
        raise ValueError(f"input {tensor.name!r} takes {tensor.datatype}, got {found}")
    wanted = tensor.dtype.name
    raise ValueError(
        f"input {tensor.name!r} takes {tensor.datatype} ({wanted}), got {found}; "
        f"cast it if you can accept the loss: .astype({wanted!r})"
    )


def _leaf_types(value: object) -> Iterator[type]:
    """Yield the types in a value, Python's for numpy's text, of which numpy loses zero bytes."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaf_types(item)
    else:
        kind = type(value)
        yield _NUMPY_TEXT.get(kind, kind)


def _names(kinds: Iterable[type]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))


def _from_python(tensor: TensorSpec, value: object, leaves: set[type]) -> Array:
    datatype = tensor.datatype
    allowed = _ALLOWED.get(datatype, frozenset({int}))
    if not leaves <= allowed:
        raise ValueError(f"input {tensor.name!r} takes {datatype}, got {_names(leaves - allowed)}")
    try:
        if datatype == "BYTES":
            return _text_array(value)
        with np.errstate(over="ignore"):
            array: Array = np.array(value, dtype=tensor.dtype)
        exact = _keeps_values(value, array, leaves)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"input {tensor.name!r} cannot be made {datatype}: {error}") from error
    if not exact:
        raise ValueError(f"input {tensor.name!r} has values that {datatype} cannot hold")
    return array


def _text_array(value: object) -> Array:
    """Return text in nested lists as an object array, every element as it is.

    Raises:
        ValueError: The lists differ in their lengths.
    """
    shape: list[int] = []
    items: list[Any] = [value]
    while items and all(isinstance(item, list | tuple) for item in items):
        lengths = {len(item) for item in items}
        if len(lengths) > 1:
            raise ValueError("its lists differ in their lengths")
        shape.append(lengths.pop())
        items = [part for item in items for part in item]
    if any(isinstance(item, list | tuple) for item in items):
        raise ValueError("its lists differ in their depths")
    array = np.empty(len(items), object)
    array[:] = [bytes(item) if isinstance(item, bytearray) else item for item in items]
    return array.reshape(shape)


def _keeps_values(value: object, array: Array, leaves: set[type]) -> bool:
    """Check whether Python numbers are the same in an array, up to a float's rounding."""
    if float in leaves:
        return bool(np.array_equal(np.isfinite(np.array(value, np.float64)), np.isfinite(array)))
    if not np.isfinite(array).all():
        return False
    numbers: list[Any] = np.array(value, dtype=object).ravel().tolist()
    return all(
        int(item) == number for item, number in zip(array.ravel().tolist(), numbers, strict=True)
    )


def _check_shape(tensor: TensorSpec, array: Array) -> None:
    if not _fits(array, tensor.shape):
        found = list(array.shape)
        raise ValueError(f"input {tensor.name!r} takes the shape {list(tensor.shape)}, got {found}")


def _fits(array: Array, shape: tuple[int, ...]) -> bool:
    return array.ndim == len(shape) and all(
        dim in (-1, size) for dim, size in zip(shape, array.shape, strict=True)
    )


def _check_batch(arrays: list[tuple[TensorSpec, Array]]) -> None:
    rows = {len(array) for _, array in arrays}
    if len(rows) > 1:
        listed = ", ".join(f"{tensor.name!r} {len(array)}" for tensor, array in arrays)
        raise ValueError(f"the inputs differ in their rows: {listed}")
    if 0 in rows:
        raise ValueError("a batch has at least one row")


def _check_buffer(tensor: TensorSpec, array: Array, shm: ShmRegistry) -> None:
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


def _check_buffer_size(tensor: TensorSpec, array: Array, *, rows: int | None, split: bool) -> None:
    shape = tensor.shape if rows is None else (rows, *tensor.shape[1:])
    if split and not _fits(array, shape):
        raise ValueError(
            f"output {tensor.name!r} comes in several responses and needs an array of exactly the "
            f"shape {list(shape)}, got {list(array.shape)}"
        )
    if min(shape, default=0) >= 0 and prod(shape) > array.size:
        raise ValueError(
            f"output {tensor.name!r} has the shape {list(shape)}, too large for an array of "
            f"{list(array.shape)}"
        )
