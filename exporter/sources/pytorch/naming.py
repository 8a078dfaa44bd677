"""Names and declares the tensors of a torch model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporter.errors import ValidationFailedError
from exporter.interface import Tensor, unique_names
from exporter.sources.mlmodel import Field

__all__ = ["names_of", "output_names", "tensors_of"]

# Triton's wire name of every dtype that can be served.
_DATATYPES = {
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


def names_of(own: Sequence[Any], promised: Sequence[Field], fallback: str) -> tuple[str, ...]:
    """The signature's names where it names every tensor; MLflow binds them by position.

    Raises:
        ValidationFailedError: It has the model's own names, some of them for other tensors.
    """
    names, given = [str(name) for name in own], [field.name for field in promised]
    if len(given) != len(names) or not all(given) or set(given) == set(names):
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


def output_names(answer: Any, promised: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of the tensors that a model returns, in whatever containers."""
    paths = [path for path, _ in pytree.tree_flatten_with_path(answer)[0]]
    if any(isinstance(key, pytree.MappingKey) for path in paths for key in path):
        # The model names its outputs itself; the signature must agree, not rename them.
        keys = ([str(getattr(k, "key", getattr(k, "idx", ""))) for k in path] for path in paths)
        return unique_names(map("_".join, keys), "output")
    own = ["output"] if len(paths) == 1 else [f"output_{index}" for index in range(len(paths))]
    return names_of(own, promised, "output")


def tensors_of(
    names: Sequence[str],
    values: Sequence[torch.Tensor],
    shapes: Sequence[Sequence[Any]] | None = None,
) -> tuple[Tensor, ...]:
    """Declare tensors; a size that is no number is a symbol.

    Raises:
        ValidationFailedError: One is of a dtype that cannot be served.
    """
    tensors = []
    for name, value, shape in zip(names, values, shapes or [v.shape for v in values], strict=True):
        if value.dtype not in _DATATYPES:
            raise ValidationFailedError(
                f"the tensor '{name}' is {value.dtype}, which this release cannot serve",
                hint=f"Cast it to one of {', '.join(sorted(_DATATYPES.values()))} inside the "
                "model.",
                kind="interface",
            )
        axes = tuple(size if isinstance(size, int) else str(size) for size in shape)
        tensors.append(Tensor(name, _DATATYPES[value.dtype], axes))
    return tuple(tensors)
