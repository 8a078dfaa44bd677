"""One module per target format; each turns a `Source` into model files for one Triton backend.

A new format is one new module with ``convert(source, folder, target, truth)`` and one line below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from exporter.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.formats.base import Conversion, Target
    from exporter.parity.truth import Truth
    from exporter.sources.base import Source

__all__ = ["FORMATS", "convert"]

FORMATS = {
    "onnx": "exporter.formats.onnx",
    "torchscript": "exporter.formats.torchscript",
    "tensorrt": "exporter.formats.tensorrt",
}
"""Formats by name, with the module that writes them (imported when needed)."""


def convert(name: str, source: Source, folder: Path, target: Target, truth: Truth) -> Conversion:
    """Write a model's files into a folder.

    Args:
        name: The format.
        source: The reference.
        folder: An empty folder.
        target: What the files are for.
        truth: The reference's answers, to choose between ways to convert and to calibrate.

    Raises:
        UsageError: The format is not known here.
        ValidationFailed: The model has no such form, or the release cannot load it.
    """
    if name not in FORMATS:
        raise UsageError(
            f"the format {name!r} is not supported by this release",
            hint=f"Use one of: {', '.join(FORMATS)}.",
        )
    converter = import_module(FORMATS[name]).convert
    return cast("Conversion", converter(source, folder, target, truth))
