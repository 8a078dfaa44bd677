"""One module per target format; each turns a `Source` into model files for one Triton backend.

A new format is one new module with ``convert(source, folder, target, references)`` and one line in
`FORMATS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from exporter.errors import UsageError
from exporter.triton.runtime import find_tritonserver

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.formats.base import Conversion, Target
    from exporter.parity.reference_set import ReferenceSet
    from exporter.sources.base import Source
    from exporter.triton.releases import Release

__all__ = ["FORMATS", "check", "convert"]

FORMATS = {
    "onnx": "exporter.formats.onnx",
    "torchscript": "exporter.formats.torchscript",
    "tensorrt": "exporter.formats.tensorrt",
}
"""Formats by name, with the module that writes them (imported when needed)."""


def check(name: str, target: Release, prove_on: str = "") -> None:
    """Refuse a format that cannot be written or proven here, before anything is done.

    Args:
        name: The format.
        target: The release that is to serve it.
        prove_on: The address of a server to prove on, where one is named.

    Raises:
        UsageError: What it takes is not installed.
        ValidationFailedError: What is installed writes it for another release.
    """
    if name == "tensorrt":
        from exporter.formats.tensorrt.requirements import check_available

        check_available(target, provable=bool(prove_on) or find_tritonserver() is not None)


def convert(
    name: str, source: Source, folder: Path, target: Target, references: ReferenceSet
) -> Conversion:
    """Write a model's files into a folder.

    Args:
        name: The format.
        source: The reference.
        folder: An empty folder.
        target: What the files are for.
        references: The reference's answers, to choose between ways to convert and to calibrate.

    Raises:
        UsageError: The format is not known here.
        ValidationFailedError: The model has no such form, or the release cannot load it.
    """
    if name not in FORMATS:
        raise UsageError(
            f"the format {name!r} is not supported by this release",
            hint=f"Use one of: {', '.join(FORMATS)}.",
        )
    converter = import_module(FORMATS[name]).convert
    return cast("Conversion", converter(source, folder, target, references))
