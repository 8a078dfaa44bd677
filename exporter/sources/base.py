"""The protocols of a model source, and of the module that opens one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exporter.arrays import Array, Arrays
from exporter.interface import Interface
from exporter.sources.known_values import Knowledge
from exporter.sources.mlmodel import MLModel

__all__ = [
    "EXTERNAL_DATA_BYTES",
    "FlavorModule",
    "InputRejectedError",
    "OnnxExporter",
    "OnnxTarget",
    "Source",
]

EXTERNAL_DATA_BYTES = 128 * 1024 * 1024
"""Above this size an ONNX model's weights are written to a file of their own; one protobuf holds at
most 2 GB, and needs several copies of them in memory."""

OnnxExporter = Callable[[Path], str]
"""Writes an ONNX file and returns the name of what wrote it; raises whatever the converter does."""


@dataclass(frozen=True, slots=True)
class OnnxTarget:
    """What an ONNX file is to be.

    Attributes:
        opset: The opset of ``ai.onnx`` to write, where it can be chosen.
        ir: The IR version to write, where it can be chosen.
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
    """A registry model as it was logged: the reference, which can also write itself as ONNX.

    Attributes:
        flavor: The MLflow flavor, with its serialization.
        interface: Names, datatypes and axes as the model itself declares them.
        example: The logged example by input name, where there is one.
        versions: The libraries that took part, for the manifest.
        notes: For readers of the report.
        frozen_axes: Sentences on axes that the signature leaves free and the model fixes.
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
    frozen_axes: Sequence[str]
    batching_blocker: str
    has_thresholds: bool

    @property
    def operators(self) -> frozenset[str]:
        """The operators of a torch program ("aten.logsumexp") or an ONNX file ("Mod").

        Empty where the model is neither, or is several models.
        """

    @property
    def sizes_beyond(self) -> Mapping[str, Sequence[int]]:
        """Sizes of variable axes, by symbol, at which the model may take another branch."""

    @property
    def knowledge(self) -> Knowledge:
        """What the model knows of its inputs and outputs beyond what its example shows."""

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the registry model's own outputs.

        Raises:
            InputRejectedError: The model refuses these inputs.
        """

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the same computed in float64, or None where the model cannot do that."""

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return at least one exporter to ONNX, the best one first.

        The first whose file matches the model is taken.

        Raises:
            ValidationFailedError: The model has no ONNX form.
        """


class FlavorModule(Protocol):
    """What the module of a flavor provides."""

    def open_source(self, model: MLModel, *, allow_pickle: bool) -> Source:
        """Open a logged model.

        Args:
            model: A private copy of the artifact, with its parsed ``MLmodel`` file.
            allow_pickle: Whether pickled content may be loaded, which runs code that it carries.

        Raises:
            ValidationFailedError: The artifact is damaged or unsafe, or the model is no reference.
            UsageError: A library that the flavor needs is not installed.
        """
