"""The example inputs of a logged module: logged ones, or random ones of its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.bounded_text import UNFIT
from exporter.errors import ValidationFailedError
from exporter.interface import Axis, Tensor
from exporter.sources.mlmodel import Field, MLModel
from triton_client.types import numpy_dtype, wire_datatype

__all__ = ["InputExample", "logged_example"]

_UNKNOWN = 3  # the size of an axis without a known size


@dataclass(frozen=True, slots=True)
class InputExample:
    """An example of a module's inputs.

    Attributes:
        arrays: By name, in the order of the signature; a single one may have no name.
        varying: The axes of every input that are declared to vary.
        given: Whether it was logged; else it is random.
    """

    arrays: Arrays
    varying: Mapping[str, Sequence[int]]
    given: bool


def logged_example(model: MLModel) -> InputExample:
    """Return the example of a logged model, or a random one of its signature.

    Raises:
        ValidationFailedError: The model has neither, or takes more than tensors.
    """
    fields = model.inputs
    if not fields:
        return _from_file(model)
    if all(field.shape is None for field in fields):
        # MLflow hands a table to a torch model as one matrix of float32.
        fields = (_matrix(len(fields)),)
    tensors = [_declared(field) for field in fields]
    varying = {t.name: [i for i, axis in enumerate(t.axes) if axis == -1] for t in tensors}
    example = _table(model) if model.inputs[0].shape is None else model.example(tensors)
    if example is not None:
        return InputExample(example, varying, given=True)
    random = np.random.default_rng(0)
    return InputExample({t.name: _random(t, random) for t in tensors}, varying, given=False)


def _matrix(columns: int) -> Field:
    from exporter.sources.mlmodel import Field

    return Field("", "float32", (-1, columns))


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
    values = _read(model)
    if not isinstance(values, dict) or "data" not in values:
        return None
    try:
        return {"": np.asarray(values["data"], dtype=np.float32)}
    except UNFIT:
        return None


def _from_file(model: MLModel) -> InputExample:
    """MLflow writes no signature where it cannot call the model, such as with a dict."""
    values = _read(model)
    if isinstance(values, dict) and {"columns", "data"} <= set(values):
        values = np.asarray(values["data"], dtype=np.float32).tolist()
    named = values if isinstance(values, dict) else {"": values}
    arrays = {name: _array(value) for name, value in named.items()}
    if values is None or not arrays or any(array is None for array in arrays.values()):
        raise ValidationFailedError(
            "the version says neither by a signature nor by an example what it takes",
            hint="Log it with signature=mlflow.models.infer_signature(inputs, outputs) and "
            "input_example=inputs.",
            kind="signature",
        )
    known = {name: array for name, array in arrays.items() if array is not None}
    return InputExample(
        known, {name: [0] if a.ndim else [] for name, a in known.items()}, given=True
    )


def _array(value: Any) -> Array | None:
    try:
        array = np.asarray(value)
    except UNFIT:
        return None
    if array.dtype.kind == "f":
        return array.astype(np.float32)  # torch's default
    return array if array.dtype.kind in "biu" else None


def _read(model: MLModel) -> Any:
    values = model.example_content()
    if isinstance(values, dict) and set(values) == {"inputs"}:
        return values["inputs"]
    return values
