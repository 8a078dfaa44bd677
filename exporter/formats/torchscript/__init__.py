"""The ``torchscript`` format: an archive for Triton's pytorch backend."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.base import Conversion, Target
from exporter.formats.first_valid import export_first_valid
from exporter.interface import Interface, Tensor
from exporter.parity.reference_set import ReferenceSet

if TYPE_CHECKING:
    import torch

    from exporter.sources.base import Source

__all__ = ["FILENAME", "TorchScriptSource", "convert"]

FILENAME = "model.pt"
SERVED = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
"""The datatypes that the pytorch backend serves, except for lists of strings."""


@runtime_checkable
class TorchScriptSource(Protocol):
    """A source that is a torch module."""

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and example inputs.

        An adapter keeps the registered module as ``module``.
        """


class _TorchSource(TorchScriptSource, Protocol):
    interface: Interface
    batching_blocker: str


def convert(source: Source, folder: Path, target: Target, references: ReferenceSet) -> Conversion:
    """Write ``model.pt``; see `exporter.formats.convert`."""
    if not isinstance(source, TorchScriptSource):
        raise ValidationFailedError(
            f"a model of the flavor {source.flavor} has no TorchScript form; torch models have one",
            hint="Export it with --format onnx.",
            kind="format",
        )
    _check_datatypes(source.interface)
    names = _served_names(source.interface)
    with warnings.catch_warnings(action="ignore"):
        converter = _export(source, folder, references)
    return Conversion(
        format="torchscript",
        backend="pytorch",
        filename=FILENAME,
        interface=_served(source.interface, names, target.rows),
        converter=converter,
        versions=_versions(),
        bytes=(folder / FILENAME).stat().st_size,
        names=names,
        facts={"names": {served: name for name, served in names.items()}},
        notes=(_numbered(names),),
    )


def _export(source: _TorchSource, folder: Path, references: ReferenceSet) -> str:
    """Write the file, and return what wrote it."""
    from exporter.formats.torchscript.archive import write_archive
    from exporter.formats.torchscript.exporters import ScriptExporter, script_exporters
    from exporter.formats.torchscript.precheck import precheck

    module, example = source.torchscript_module()
    blocker = source.batching_blocker

    def write(exporter: ScriptExporter, place: Path) -> str:
        name, export = exporter
        try:
            write_archive(export(), place / FILENAME)
        except Exception as error:
            raise _not_written(error, blocker) from error
        return name

    return export_first_valid(
        # What branches on values for a whole batch may take another branch for other values.
        script_exporters(module, example, source.interface, branches=bool(blocker)),
        write,
        lambda _, place: not precheck(place / FILENAME, source.interface, references),
        folder,
    )


def _not_written(error: Exception, branches: str) -> ValidationFailedError:
    detail = first_line(error)
    if branches:
        detail = f"{branches}, of which a trace would keep one, and torch.jit.script says: {detail}"
    return ValidationFailedError(
        f"the model cannot be written as TorchScript: {detail}",
        hint="Export it with --format onnx, or rewrite what it names and log the model again.",
        kind="convert",
    )


def _check_datatypes(interface: Interface) -> None:
    for kind, tensors in (("input", interface.inputs), ("output", interface.outputs)):
        for tensor in tensors:
            if tensor.datatype not in SERVED:
                raise ValidationFailedError(
                    f"the {kind} '{tensor.name}' is {tensor.datatype}, which Triton's pytorch "
                    "backend does not serve",
                    hint=f"Cast it to one of {', '.join(SERVED)} inside the model, or export with "
                    "--format onnx.",
                    kind="interface",
                )


def _served_names(interface: Interface) -> dict[str, str]:
    """Number the tensors: the backend identifies them by the number in their names alone."""
    inputs = {tensor.name: f"INPUT__{i}" for i, tensor in enumerate(interface.inputs)}
    outputs = {tensor.name: f"OUTPUT__{i}" for i, tensor in enumerate(interface.outputs)}
    if both := sorted(set(inputs) & set(outputs)):
        raise ValidationFailedError(
            f"an input and an output are both called '{both[0]}'",
            hint="Give the output another name, and log the model again.",
            kind="interface",
        )
    return inputs | outputs


def _served(interface: Interface, names: dict[str, str], rows: int | None) -> Interface:
    """The interface under the served names, with the inputs' leading axis fixed at *rows*."""

    def fixed(tensor: Tensor) -> Tensor:
        if rows is None or not tensor.axes or isinstance(tensor.axes[0], int):
            return tensor
        return replace(tensor, axes=(rows, *tensor.axes[1:]))

    return Interface(
        tuple(replace(fixed(tensor), name=names[tensor.name]) for tensor in interface.inputs),
        tuple(replace(tensor, name=names[tensor.name]) for tensor in interface.outputs),
    )


def _numbered(names: dict[str, str]) -> str:
    pairs = ", ".join(f"{served} is '{name}'" for name, served in names.items())
    return f"Triton's pytorch backend numbers tensors: {pairs}."


def _versions() -> dict[str, str]:
    import torch

    return {"torch": torch.__version__.partition("+")[0]}
