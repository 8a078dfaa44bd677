"""What every source of a model offers, whatever MLflow flavor it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.arrays import Array, Arrays
    from exporter.interface import Interface

__all__ = ["InputRejectedError", "OnnxExporter", "OnnxTarget", "Source"]

OnnxExporter = Callable[[Path], str]
"""Writes an ONNX file and returns the name of what wrote it; raises whatever the converter does."""


@dataclass(frozen=True, slots=True)
class OnnxTarget:
    """What an ONNX file is to be.

    Attributes:
        opset: The opset of ``ai.onnx`` to write, where it can be chosen.
        ir: The IR version to write, likewise.
        max_opset: The newest opset that the target release reads.
        max_ir: The newest IR version that it reads.
    """

    opset: int
    ir: int
    max_opset: int
    max_ir: int


class InputRejectedError(Exception):
    """The reference itself refuses these inputs, as it may: a guard, an index out of range."""


class Source(Protocol):
    """A registry model as it was logged: the reference, and the way to write it in a format.

    Attributes:
        flavor: The MLflow flavor, with its serialization.
        interface: Names, datatypes and axes as the model itself declares them.
        example: The logged example by input name, where there is one.
        versions: The libraries that took part, for the manifest.
        notes: What a reader of the report should know.
        batching_blocker: Why rows may depend on each other although no example shows it; empty
            where they may not.
        has_thresholds: Whether the model compares raw inputs with thresholds, as trees do, so that
            a threshold's last digit counts.
    """

    flavor: str
    interface: Interface
    example: Arrays | None
    versions: Mapping[str, str]
    notes: list[str]
    batching_blocker: str
    has_thresholds: bool

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the registry model's own answer.

        Raises:
            InputRejectedError: The model refuses these inputs.
        """

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the same computed in float64, or None where the model cannot do that."""

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return the ways to write the model as ONNX, the best one first.

        The first whose file answers as the model does is taken.

        Raises:
            ValidationFailedError: The model has no ONNX form.
        """
