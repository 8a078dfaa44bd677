"""Reads MLflow's description of a logged model: flavors, signature and input example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from exporter.arrays import Array
from exporter.bounded_text import UNFIT, parse_json, read_bounded, reading
from exporter.errors import ValidationFailedError
from exporter.interface import Tensor
from exporter.names import artifact_path
from exporter.sources.bounded_yaml import MOST_BYTES, parse_yaml
from triton_client.types import numpy_dtype, wire_datatype

__all__ = ["Field", "MLModel", "check_signature", "frozen_axes"]


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor of a signature; an unnamed tensor has an empty name, a column no shape."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        shape = "" if self.shape is None else f" {list(self.shape)}"
        return f"{self.name or '(unnamed)'} {self.dtype}{shape}"


@dataclass(frozen=True, slots=True)
class MLModel:
    """A logged model's folder and its ``MLmodel`` file."""

    path: Path
    flavors: Mapping[str, Mapping[str, Any]]
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    example_file: Path | None
    logged: datetime | None

    @classmethod
    def read(cls, path: Path) -> MLModel:
        """Read the ``MLmodel`` file of a folder.

        Raises:
            ValidationFailedError: It is missing or cannot be read.
        """
        with reading(
            "the artifact's MLmodel file",
            hint="Log the model again; the version's artifact is damaged.",
            kind="artifact",
        ):
            content = parse_yaml(read_bounded(path / "MLmodel", MOST_BYTES))
            signature = content.get("signature") or {}
            example = (content.get("saved_input_example_info") or {}).get("artifact_path")
            return cls(
                path=path,
                flavors={_text(name): dict(held) for name, held in content["flavors"].items()},
                inputs=_fields(signature.get("inputs")),
                outputs=_fields(signature.get("outputs")),
                example_file=path / artifact_path(example) if example else None,
                logged=_time(content.get("utc_time_created")),
            )

    def file(self, name: str) -> Path:
        """Return a path inside the artifact, checked."""
        return self.path / artifact_path(name)

    def example(self, tensors: Sequence[Tensor]) -> dict[str, Array] | None:
        """Return the logged example as the given inputs, or None where it does not fit them."""
        values = self.example_content()
        # As MLflow 3 writes it, in the form of a request to its server.
        if isinstance(values, dict) and set(values) == {"inputs"}:
            values = values["inputs"]
        if not isinstance(values, dict):
            values = {tensors[0].name: values} if len(tensors) == 1 else {}
        try:
            return {t.name: _array(values[t.name], t) for t in tensors}
        except UNFIT:
            return None

    def example_content(self) -> Any:
        """Return what the logged example's file holds; None where there is none to read."""
        if self.example_file is None or not self.example_file.is_file():
            return None
        try:
            return parse_json(self.example_file)
        except (OSError, ValueError):
            return None


def check_signature(model: MLModel, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Compare the signature with what the model really takes and gives.

    Raises:
        ValidationFailedError: They do not fit; the first difference is named.
    """
    for kind, fields, tensors in (
        ("input", model.inputs, inputs),
        ("output", model.outputs, outputs),
    ):
        if not fields or any(field.shape is None for field in fields):
            continue  # no signature, or columns of a table, which have no tensor shapes
        if len(fields) != len(tensors):
            _refuse(
                f"it promises {len(fields)} {kind}(s) ({_join(fields)}), "
                f"the model has {len(tensors)} ({_join(tensors)})"
            )
        by_name = {tensor.name: tensor for tensor in tensors}
        for field, positional in zip(fields, tensors, strict=True):
            tensor = by_name.get(field.name) if field.name else positional
            if tensor is None:
                _refuse(f"it promises the {kind} '{field.name}', the model has {_join(tensors)}")
            _check_field(kind, field, tensor)


def frozen_axes(model: MLModel, inputs: Sequence[Tensor], reason: str) -> list[str]:
    """Return a sentence about every axis that the signature leaves free and the model fixes.

    Args:
        model: The logged model, whose signature fits.
        inputs: What the model takes.
        reason: Why it takes no other size.
    """
    fields = model.inputs
    by_name = {tensor.name: tensor for tensor in inputs}
    sentences = []
    for field, positional in zip(fields, inputs, strict=False):
        tensor = by_name.get(field.name, positional)
        for index, (promised, axis) in enumerate(zip(field.shape or (), tensor.axes, strict=False)):
            if promised == -1 and isinstance(axis, int):
                sentences.append(
                    f"The signature leaves '{tensor.name}' axis {index} free, but it is served "
                    f"with exactly {axis}: {reason}."
                )
    return sentences


def _check_field(kind: str, field: Field, tensor: Tensor) -> None:
    try:
        expected = wire_datatype(np.dtype(field.dtype))
    except (TypeError, ValueError):
        expected = field.dtype  # such as a date, which is no tensor
    if expected != tensor.datatype:
        _refuse(
            f"the {kind} '{tensor.name}' is {field.dtype} there, {tensor.datatype} in the model"
        )
    shape = field.shape or ()
    fits = len(shape) == len(tensor.axes) and all(
        promised == -1 or isinstance(axis, str) or promised == axis
        for promised, axis in zip(shape, tensor.axes, strict=True)
    )
    if not fits:
        _refuse(
            f"the {kind} '{tensor.name}' has the shape {list(shape)} there, "
            f"{list(tensor.shape)} in the model"
        )


def _refuse(difference: str) -> NoReturn:
    raise ValidationFailedError(
        f"the signature does not fit the model: {difference}",
        hint="Log the model again with a signature inferred from the example and the model's "
        "own output (mlflow.models.infer_signature).",
        kind="signature",
    )


def _fields(text: str | None) -> tuple[Field, ...]:
    fields = []
    for entry in parse_json(_text(text)) if text else []:
        spec = entry.get("tensor-spec")
        if spec:
            shape = tuple(int(size) for size in spec["shape"])
            fields.append(Field(_text(entry.get("name") or ""), str(spec["dtype"]), shape))
        else:
            fields.append(Field(_text(entry.get("name") or ""), str(entry["type"]), None))
    return tuple(fields)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"it has {value!r:.80} where a text is due")
    return value


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    except ValueError:
        return None


def _array(values: Any, tensor: Tensor) -> Array:
    array: Array = np.asarray(values, dtype=numpy_dtype(tensor.datatype))
    if array.ndim != len(tensor.axes):
        raise ValueError(tensor.name)
    return array


def _join(items: Sequence[object]) -> str:
    return ", ".join(map(str, items)) or "none"
