"""What every format is told, and what it hands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.interface import Interface
    from exporter.triton.releases import Release

__all__ = ["Conversion", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a model is converted for.

    Attributes:
        release: The Triton release that will serve the files.
        precision: ``fp32``, which keeps the model's own types, ``fp16`` or ``int8``.
        accelerator: ``tensorrt`` for Triton's TensorRT accelerator of ONNX models, or empty.
        max_batch_size: The most rows in one request; 0 where rows are not batched.
        rows: The number of rows to fix the leading axis at, where the reference takes no other.
    """

    release: Release
    precision: str = "fp32"
    accelerator: str = ""
    max_batch_size: int = 0
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """Model files in a folder, and what a server must know of them.

    Attributes:
        format: The format's name.
        backend: Triton's backend for it.
        filename: The model file, Triton's ``default_model_filename``.
        interface: Names, datatypes and axes as the files declare them.
        converter: What wrote the files.
        versions: The libraries that took part, for the manifest.
        bytes: The size of all model files.
        names: The served name of every tensor that the reference calls otherwise.
        facts: What the manifest is to say beside.
        notes: What a reader of the report should know.
        accelerator: As in `Target`.
        measured: What was measured beside float32, for the report; it differs from run to run, and
            so the manifest says nothing of it.
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
