"""What every source of a model offers, whatever MLflow flavor it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.arrays import Array, Arrays
    from exporter.interface import Interface

__all__ = ["CannotRun", "OnnxTarget", "OnnxWay", "Source"]

OnnxWay = Callable[[Path], str]
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


class CannotRun(Exception):  # noqa: N818 - names a verdict, not a mishap
    """The reference itself refuses these inputs, as it may: a guard, an index out of range."""


class Source(Protocol):
    """A registry model as it was logged: the reference, and the way to write it in a format.

    Attributes:
        flavor: The MLflow flavor, with its serialization.
        interface: Names, datatypes and axes as the model itself declares them.
        example: The logged example by input name, where there is one.
        versions: The libraries that took part, for the manifest.
        notes: What a reader of the report should know.
        mixes_rows: Why rows may depend on each other although no example shows it; else empty.
        splits: Whether it compares its inputs as they are with thresholds, as trees do, so that a
            threshold's last digit counts.
    """

    flavor: str
    interface: Interface
    example: Arrays | None
    versions: Mapping[str, str]
    notes: list[str]
    mixes_rows: str
    splits: bool

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the registry model's own answer.

        Raises:
            CannotRun: The model refuses these inputs.
        """

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the same computed in float64, or None where the model cannot do that."""

    def onnx_ways(self, target: OnnxTarget) -> Sequence[OnnxWay]:
        """Return the ways to write the model as ONNX, the best one first.

        The first whose file answers as the model does is taken.

        Raises:
            ValidationFailedError: The model has no ONNX form.
        """
