"""Target formats: each module here writes a model's files for one Triton backend.

To add a format, add a module with a `convert` function (see `FormatModule`) and a line to
`FORMATS`. CONTRIBUTING.md has the whole recipe.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.errors import UsageError
from exporter.formats.base import Format
from exporter.triton.releases import Release
from exporter.triton.runtime import find_tritonserver

if TYPE_CHECKING:
    from exporter.formats.base import Conversion, FormatModule, Target
    from exporter.parity.reference_set import ReferenceSet
    from exporter.sources.base import Source

__all__ = ["FORMATS", "check", "convert"]

FORMATS = {
    "onnx": Format("exporter.formats.onnx", backend="onnxruntime"),
    "torchscript": Format("exporter.formats.torchscript", backend="pytorch"),
    "tensorrt": Format("exporter.formats.tensorrt", backend="tensorrt"),
}
"""Formats by the name that ``--format`` takes; a module is imported when it is needed."""


def check(name: str, target: Release, prove_on: str = "") -> None:
    """Reject a format that cannot be written or proven here, before anything is done.

    Args:
        name: The format.
        target: The release that is to serve it.
        prove_on: The address of a server to prove on, or empty.

    Raises:
        UsageError: What it needs is not installed.
        ValidationFailedError: What is installed writes it for another release.
    """
    if name == "tensorrt":
        from exporter.formats.tensorrt.requirements import check_available

        check_available(target, provable=bool(prove_on) or find_tritonserver() is not None)


def convert(
    name: str, source: Source, folder: Path, target: Target, references: ReferenceSet
) -> Conversion:
    """Write a model in a format; see `FormatModule.convert`.

    Raises:
        UsageError: The format is unknown.
        ValidationFailedError: The model has no such form, or the release cannot load it.
    """
    if name not in FORMATS:
        raise UsageError(
            f"the format {name!r} is not supported by this release",
            hint=f"Use one of: {', '.join(FORMATS)}.",
        )
    module = cast("FormatModule", import_module(FORMATS[name].module))
    return module.convert(source, folder, target, references)
