"""The protocol of a format's module, and the values that go in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exporter.triton.releases import Release

if TYPE_CHECKING:
    from exporter.interface import Interface
    from exporter.parity.reference_set import ReferenceSet
    from exporter.sources.base import Source

__all__ = ["Conversion", "Format", "FormatModule", "Target"]


@dataclass(frozen=True, slots=True)
class Format:
    """The module that writes a format, and the Triton backend that serves it."""

    module: str
    backend: str


class FormatModule(Protocol):
    """What the module of a format provides."""

    def convert(
        self, source: Source, folder: Path, target: Target, references: ReferenceSet
    ) -> Conversion:
        """Write a model's files into a folder.

        Args:
            source: The registry model, which can write itself as ONNX.
            folder: An empty folder for the files, and nothing else.
            target: What the files are for.
            references: The reference's outputs, to choose between exporters and to calibrate.

        Raises:
            ValidationFailedError: The model has no such form, or the release cannot load it.
        """


@dataclass(frozen=True, slots=True)
class Target:
    """What a model is converted for.

    Attributes:
        release: The Triton release that will serve the files.
        precision: ``fp32``, which keeps the model's own types, ``fp16`` or ``int8``.
        accelerator: ``tensorrt`` for Triton's TensorRT accelerator of ONNX models, or empty.
        max_batch_size: The most rows in one request; 0 where rows are not batched.
        rows: The size to fix the leading axis at, where the reference takes no other.
    """

    release: Release
    precision: str = "fp32"
    accelerator: str = ""
    max_batch_size: int = 0
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """Model files in a folder, and what their configuration and manifest need.

    Attributes:
        format: The format's name.
        backend: Triton's backend for it.
        filename: The model file, Triton's ``default_model_filename``.
        interface: Names, datatypes and axes as the files declare them.
        converter: What wrote the files.
        versions: The libraries that took part, for the manifest.
        bytes: The size of all model files.
        names: The served name of every tensor that has another name in the reference.
        facts: Further entries of the manifest.
        notes: For readers of the report.
        accelerator: As in `Target`.
        measured: Measurements for the report; they differ from run to run, so that the manifest
            does not contain them.
    """

    format: str
    backend: str
    filename: str
    interface: Interface
    converter: str
    versions: Mapping[str, str]
    bytes: int
    names: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    accelerator: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
