"""What every format hands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.interface import Interface

__all__ = ["Conversion"]


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
    """

    format: str
    backend: str
    filename: str
    interface: Interface
    converter: str
    versions: Mapping[str, str]
    bytes: int
