"""Target formats: each module here writes a model's files for one Triton backend.

To add a format, add a module with its name and a `convert` function, and a line to `FORMATS`.
CONTRIBUTING.md has the whole recipe.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import UsageError, ValidationFailedError
from exporter.triton.releases import Release
from exporter.triton.runtime import find_tritonserver

if TYPE_CHECKING:
    from exporter.formats.base import Conversion, Target
    from exporter.parity.reference_set import ReferenceSet
    from exporter.sources.base import Source

__all__ = ["FORMATS", "check", "convert"]

FORMATS = {"onnx": "onnxruntime", "torchscript": "pytorch", "tensorrt": "tensorrt"}
"""What ``--format`` takes, with Triton's backend; the module is imported when it is needed."""


def check(name: str, target: Release, prove_on: str = "") -> None:
    """Reject a format that cannot be written here, or proven here or on the server *prove_on*.

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
    """Write a model's files into an empty folder, with the `convert` of a format's module.

    The outputs in *references* choose between exporters, and calibrate.

    Raises:
        UsageError: The format is unknown.
        ValidationFailedError: The model has no such form, the release cannot load it, or its files
            declare a size that the reference's answers contradict.
    """
    if name not in FORMATS:
        raise UsageError(
            f"the format {name!r} is not supported by this release",
            hint=f"Use one of: {', '.join(FORMATS)}.",
        )
    module = import_module(f"exporter.formats.{name}")
    conversion: Conversion = module.convert(source, folder, target, references)
    if wrong := references.renamed(conversion.names).contradicts(conversion.interface):
        raise ValidationFailedError(
            f"the converted model fixes a size that the registered model varies: {wrong}",
            hint="Log the model with that size fixed in its signature, or in another flavor, such "
            "as onnx.",
            kind="interface",
        )
    return conversion
