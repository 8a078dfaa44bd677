"""What every source of a model offers, whatever MLflow flavor it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.interface import Interface

__all__ = ["Array", "Arrays", "CannotRun", "Source"]

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


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
    """

    flavor: str
    interface: Interface
    example: Arrays | None
    versions: Mapping[str, str]
    notes: list[str]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Return the registry model's own answer.

        Raises:
            CannotRun: The model refuses these inputs.
        """

    def run_float64(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the same computed in float64, or None where the model cannot do that."""

    def write_onnx(self, path: Path, *, opset: int, ir: int) -> str:
        """Write an ONNX file and return the name of what wrote it.

        Raises:
            ValidationFailed: The model has no ONNX form.
        """
