"""What a format's module takes, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter.triton.releases import Release

if TYPE_CHECKING:
    from exporter.interface import Interface

__all__ = ["Conversion", "Target"]


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
        filename: The model file, Triton's ``default_model_filename``.
        interface: Names, datatypes and axes as the files declare them.
        converter: What wrote the files.
        versions: The libraries that took part, for the manifest.
        bytes: The size of all model files.
        names: The served name of every tensor that has another name in the reference.
        facts: Further entries of the manifest.
        notes: For readers of the report.
        accelerator: As in `Target`.
        answered: The names of cases that the files answer and the reference refuses.
        measured: Measurements for the report alone, since they differ from run to run.
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
    answered: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
