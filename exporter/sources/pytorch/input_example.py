"""The example inputs of a logged module: logged ones, or random ones of its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.bounded_text import UNFIT
from exporter.errors import ValidationFailedError
from exporter.interface import Axis, Tensor
from exporter.sources.mlmodel import Field, MLModel
from triton_client.types import numpy_dtype, wire_datatype

__all__ = ["logged_example"]

_UNKNOWN = 3  # the size of an axis without a known size


def logged_example(model: MLModel) -> tuple[Arrays, Mapping[str, Sequence[int]], bool]:
    """Return the example of a logged model, or a random one of its signature.

    Returns:
        Arrays by name in the order of the signature, where a single one may have no name; the axes
        of each that are declared to vary; and whether the example was logged.

    Raises:
        ValidationFailedError: The model has neither, or takes more than tensors.
    """
    fields = model.inputs
    if not fields:
        arrays = _from_file(model)
        return arrays, {name: [0] if array.ndim else [] for name, array in arrays.items()}, True
    is_table = all(field.shape is None for field in fields)
    if is_table:
        # MLflow hands a table to a torch model as one matrix of float32.
        fields = (Field("", "float32", (-1, len(fields))),)
    tensors = [_declared(field) for field in fields]
    varying = {t.name: [i for i, axis in enumerate(t.axes) if axis == -1] for t in tensors}
    example = _table(model) if is_table else model.example(tensors)
    if example is not None:
        return example, varying, True
    random = np.random.default_rng(0)
    return {t.name: _random(t, random) for t in tensors}, varying, False


def _declared(field: Field) -> Tensor:
    if field.shape is None:
        raise ValidationFailedError(
            f"the signature mixes tensors with the column '{field.name}'",
            hint="Log the model with a signature of tensors alone.",
            kind="signature",
        )
    try:
        datatype = wire_datatype(np.dtype(field.dtype))
    except (TypeError, ValueError):
        datatype = ""
    if datatype in {"", "BYTES"}:
        raise ValidationFailedError(
            f"the signature promises the input '{field.name}' as {field.dtype}, which no torch "
            "tensor is",
            hint="Log the model with a signature of the tensors that forward() takes.",
            kind="signature",
        )
    axes: tuple[Axis, ...] = tuple(field.shape)
    return Tensor(field.name, datatype, axes)


def _random(tensor: Tensor, random: np.random.Generator) -> Array:
    shape = [_UNKNOWN if size == -1 else int(size) for size in tensor.axes]
    values: Any = random.random(shape) if tensor.datatype.startswith("FP") else np.ones(shape)
    return np.asarray(values, dtype=numpy_dtype(tensor.datatype))


def _table(model: MLModel) -> Arrays | None:
    try:
        return {"": np.asarray(_read(model)["data"], dtype=np.float32)}
    except UNFIT:
        return None


def _from_file(model: MLModel) -> Arrays:
    """MLflow writes no signature where it cannot call the model, such as with a dict."""
    values = _read(model)
    if isinstance(values, dict) and {"columns", "data"} <= set(values):
        values = np.asarray(values["data"], dtype=np.float32)
    named = values if isinstance(values, dict) else {"": values}
    try:
        arrays = {name: _array(value) for name, value in named.items()}
    except UNFIT:
        arrays = {}
    if not arrays:
        raise ValidationFailedError(
            "the version says neither by a signature nor by an example what it takes",
            hint="Log it with signature=mlflow.models.infer_signature(inputs, outputs) and "
            "input_example=inputs.",
            kind="signature",
        )
    return arrays


def _array(value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fbiu":
        raise TypeError(array.dtype)
    return array.astype(np.float32) if array.dtype.kind == "f" else array  # as torch makes them


def _read(model: MLModel) -> Any:
    values = model.example_content()
    if isinstance(values, dict) and set(values) == {"inputs"}:
        return values["inputs"]
    return values
