"""The interface of a model: its tensors and their fixed and variable axes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from triton_client.types import TensorSpec

__all__ = [
    "Axis",
    "Interface",
    "InterfaceEntry",
    "Tensor",
    "TensorEntry",
    "base_of",
    "multiple_of",
    "unique_names",
    "valid_tensor_name",
]

Axis = int | str
"""A fixed size, or the symbol of a variable size; equal symbols have equal sizes.

A symbol can be a multiple of another one, as torch writes it: ``5*rows``.
"""


class TensorEntry(TypedDict):
    """A tensor in a manifest; -1 for every variable axis of its shape."""

    name: str
    datatype: str
    shape: list[int]


class InterfaceEntry(TypedDict):
    """An interface in a manifest."""

    inputs: list[TensorEntry]
    outputs: list[TensorEntry]


_MULTIPLE = re.compile(r"([1-9][0-9]*)\*(\w+)")
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/\-]*")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output, with every axis, the batch axis included.

    Its datatype is Triton's wire name of the element type, such as ``FP32`` or ``BYTES``.
    """

    name: str
    datatype: str
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape with -1 for every variable axis."""
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.axes)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of a shape can be this tensor."""
        return len(shape) == len(self.axes) and all(
            isinstance(axis, str) or axis == size
            for axis, size in zip(self.axes, shape, strict=True)
        )

    @property
    def spec(self) -> TensorSpec:
        """The tensor as `triton_client` describes it."""
        return TensorSpec(self.name, self.datatype, self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.datatype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Interface:
    """The inputs and outputs of a model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def fixed_leading_axis(self) -> str:
        """A phrase about the first tensor whose first axis is fixed; empty if there is none."""
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            for tensor in tensors:
                if not tensor.axes:
                    return f"{kind} '{tensor.name}' is a scalar, with no axis of rows"
                if isinstance(tensor.axes[0], int):
                    return f"the first axis of {kind} '{tensor.name}' is fixed at {tensor.axes[0]}"
        return ""

    def as_dict(self) -> InterfaceEntry:
        """Return the interface for the manifest, with -1 for symbols, which differ by converter."""
        return {
            "inputs": [_entry(tensor) for tensor in self.inputs],
            "outputs": [_entry(tensor) for tensor in self.outputs],
        }


def _entry(tensor: Tensor) -> TensorEntry:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def multiple_of(symbol: str, factor: int) -> str:
    """Return the symbol of a size that is so many times another one."""
    return symbol if factor == 1 else f"{factor}*{symbol}"


def base_of(symbol: str) -> tuple[str, int]:
    """Return the symbol that a symbol is a multiple of, and the factor; itself where it is none."""
    found = _MULTIPLE.fullmatch(symbol)
    return (found.group(2), int(found.group(1))) if found else (symbol, 1)


def valid_tensor_name(name: str) -> bool:
    """Whether a name is safe in a config, in a file name and in every client."""
    return _TENSOR_NAME.fullmatch(name) is not None


def unique_names(names: Iterable[str], fallback: str) -> tuple[str, ...]:
    """Make names valid and unique, deterministically; a name of nothing valid is ``fallback``."""
    result: list[str] = []
    for name in names:
        clean = re.sub(r"[^A-Za-z0-9_.:/\-]+", "_", name).strip("_.-/:") or fallback
        candidate, number = clean, 1
        while candidate in result:
            candidate, number = f"{clean}_{number}", number + 1
        result.append(candidate)
    return tuple(result)
