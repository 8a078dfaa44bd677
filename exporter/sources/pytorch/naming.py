"""Names and declares the tensors of a torch model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporter.errors import ValidationFailedError
from exporter.interface import Axis, Tensor, unique_names
from exporter.sources.mlmodel import Field

__all__ = ["DATATYPES", "datatype_of", "names_of", "output_names", "tensor_of"]

DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
"""Triton's wire name of every dtype that can be served."""


def names_of(own: Sequence[Any], promised: Sequence[Field], fallback: str) -> tuple[str, ...]:
    """The signature's names where it names every tensor; MLflow binds them by position.

    Raises:
        ValidationFailedError: It has the model's own names, some of them for other tensors.
    """
    names, given = [str(name) for name in own], [field.name for field in promised]
    if len(given) != len(names) or not all(given):
        return unique_names(names, fallback)
    if set(given) == set(names):
        return unique_names(names, fallback)
    moved = next((n for i, n in enumerate(given) if n in names and names[i] != n), None)
    if moved is not None:
        raise ValidationFailedError(
            f"the signature does not fit the model: its {fallback} '{moved}' stands in another "
            f"place than the model's own (the signature has {', '.join(given)}; the model has "
            f"{', '.join(names)})",
            hint="Log the model with a signature that names its tensors in the order of forward().",
            kind="signature",
        )
    return unique_names(given, fallback)


def output_names(spec: Any, promised: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of what a model returns."""
    paths = [
        path
        for path, _ in pytree.tree_flatten_with_path(
            pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
        )[0]
    ]
    if any(isinstance(key, pytree.MappingKey) for path in paths for key in path):
        # The model names its outputs itself; the signature must agree, not rename them.
        return unique_names((_path_name(path) for path in paths), "output")
    own = ["output"] if len(paths) == 1 else [f"output_{index}" for index in range(len(paths))]
    return names_of(own, promised, "output")


def _path_name(path: Sequence[Any]) -> str:
    return "_".join(str(getattr(key, "key", getattr(key, "idx", ""))) for key in path)


def datatype_of(name: str, dtype: torch.dtype) -> str:
    """Return the wire name of a tensor's dtype.

    Raises:
        ValidationFailedError: It cannot be served.
    """
    if dtype not in DATATYPES:
        raise ValidationFailedError(
            f"the tensor '{name}' is {dtype}, which this release cannot serve",
            hint=f"Cast it to one of {', '.join(sorted(DATATYPES.values()))} inside the model.",
            kind="interface",
        )
    return DATATYPES[dtype]


def tensor_of(name: str, value: torch.Tensor) -> Tensor:
    """Declare a tensor of a traced program, whose variable sizes are symbols."""
    axes: tuple[Axis, ...] = tuple(
        size if isinstance(size, int) else str(size) for size in value.shape
    )
    return Tensor(name, datatype_of(name, value.dtype), axes)
