"""The example that was logged with an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from exporter.arrays import Array
from exporter.bounded_text import UNFIT
from exporter.interface import Tensor
from exporter.sources.mlmodel import MLModel
from triton_client.types import numpy_dtype

__all__ = ["logged_example"]


def logged_example(
    model: MLModel, inputs: Sequence[Tensor], names: Mapping[str, str]
) -> dict[str, Array] | None:
    """Return the logged example by the inputs' served names, or None where none fits them."""
    found = model.example(inputs) or _table(model, inputs)
    if found is not None:
        return {names[name]: array for name, array in found.items()}
    return model.example([replace(tensor, name=names[tensor.name]) for tensor in inputs])


def _table(model: MLModel, inputs: Sequence[Tensor]) -> dict[str, Array] | None:
    """An example that was logged as a data frame, as MLflow passes it."""
    content = model.example_content()
    try:
        columns, rows = content["columns"], content["data"]
        if len(inputs) == 1:
            values: dict[str, Any] = {inputs[0].name: rows}
        else:
            values = {t.name: [row[columns.index(t.name)] for row in rows] for t in inputs}
        return {tensor.name: _array(values[tensor.name], tensor) for tensor in inputs}
    except UNFIT:
        return None


def _array(values: Any, tensor: Tensor) -> Array:
    array: Array = np.asarray(values, dtype=numpy_dtype(tensor.datatype))
    if array.ndim == 1 and len(tensor.axes) == 2:
        array = array[:, None]  # a column of a table
    if array.ndim != len(tensor.axes):
        raise ValueError(tensor.name)
    return array
