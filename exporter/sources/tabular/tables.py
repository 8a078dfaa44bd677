"""Tables as tensors: a matrix of numbers, or one tensor of one column for every named column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.arrays import Array, Arrays, as_text
from exporter.bounded_text import UNFIT
from exporter.errors import ValidationFailedError
from exporter.interface import Axis, Tensor, unique_names
from exporter.sources.mlmodel import Field, MLModel
from triton_client.types import numpy_dtype, wire_datatype

__all__ = ["ROWS", "Table"]

ROWS = "rows"
_COLUMN_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}


@dataclass(frozen=True, slots=True)
class Table:
    """The inputs of a tabular model.

    Attributes:
        inputs: One matrix ``[rows, n]``, or a tensor ``[rows, 1]`` for every column.
        columns: The columns' own names, in order; empty for a matrix.
        text: Whether the model takes a list of texts, each of which is a row ``[1]`` here.
    """

    inputs: tuple[Tensor, ...]
    columns: tuple[str, ...] = ()
    text: bool = False

    @classmethod
    def of(cls, model: MLModel, width: int | None) -> Table:
        """Read it from a signature; without one, a matrix of float64 of the model's width.

        Raises:
            ValidationFailedError: It takes more than numbers, truth values and strings.
        """
        fields = model.inputs
        if not fields:
            if width is None:
                raise _refused("the version has no signature, so its inputs are unknown")
            return cls((Tensor("input", "FP64", (ROWS, width)),))
        if len(fields) == 1 and _is_text(fields[0]):
            return cls((Tensor(fields[0].name or "text", "BYTES", (ROWS, 1)),), text=True)
        if all(field.shape is None for field in fields):
            names = unique_names((field.name for field in fields), "column")
            return cls(
                tuple(
                    Tensor(name, _column_type(field.name, field.dtype), (ROWS, 1))
                    for name, field in zip(names, fields, strict=True)
                ),
                tuple(field.name for field in fields),
            )
        (field,) = fields if len(fields) == 1 else (None,)
        if field is None or field.shape is None or len(field.shape) != 2:
            raise _refused("the signature promises neither one matrix nor named columns")
        axes: tuple[Axis, ...] = (ROWS, width if field.shape[1] == -1 and width else field.shape[1])
        try:
            datatype = wire_datatype(np.dtype(field.dtype))
        except (TypeError, ValueError) as error:
            raise _refused(f"the signature promises a matrix of {field.dtype}") from error
        return cls((Tensor(field.name or "input", datatype, axes),))

    def example(self, model: MLModel) -> Arrays | None:
        """Return the logged example, or None where none fits."""
        if self.text:
            return self._texts(model)
        if not self.columns:
            return model.example(self.inputs)
        content = model.example_content()
        try:
            places = [content["columns"].index(name) for name in self.columns]
            return {
                tensor.name: _column([row[place] for row in content["data"]], tensor)
                for tensor, place in zip(self.inputs, places, strict=True)
            }
        except UNFIT:
            return None

    def given(self, inputs: Arrays) -> Any:
        """Return inputs as the model takes them: a matrix, or a data frame."""
        if self.text:
            return list(as_text(next(iter(inputs.values())))[:, 0])
        if not self.columns:
            return inputs[self.inputs[0].name]
        import pandas as pd

        return pd.DataFrame(
            {
                column: as_text(inputs[tensor.name])[:, 0]
                for column, tensor in zip(self.columns, self.inputs, strict=True)
            }
        )

    def _texts(self, model: MLModel) -> Arrays | None:
        (tensor,) = self.inputs
        content = model.example_content()
        if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
            return None
        return {tensor.name: _column(content, tensor)}


def _is_text(field: Field) -> bool:
    """Whether a signature's only field is a list of texts, without a name."""
    if field.shape is None:
        return field.dtype == "string" and field.name in {"", "0"}
    return field.dtype in {"str", "object"} and field.shape == (-1,)


def _column_type(name: str, kind: str) -> str:
    if kind not in _COLUMN_TYPES:
        raise _refused(f"the column '{name}' is a {kind}, which no tensor is")
    return _COLUMN_TYPES[kind]


def _column(values: list[Any], tensor: Tensor) -> Array:
    if tensor.datatype == "BYTES":
        column: Array = np.array([str(value).encode() for value in values], dtype=object)
    else:
        numbers = [np.nan if value is None else value for value in values]
        column = np.array(numbers, dtype=numpy_dtype(tensor.datatype))
    return column[:, None]


def _refused(reason: str) -> ValidationFailedError:
    return ValidationFailedError(
        reason,
        hint="Log the model with signature=mlflow.models.infer_signature(inputs, outputs), where "
        "the inputs are one array of numbers or a data frame of numbers, truth values and strings.",
        kind="signature",
    )
