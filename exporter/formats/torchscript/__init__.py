"""The ``torchscript`` format: an archive for Triton's pytorch backend."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.base import Conversion, Target
from exporter.formats.first_valid import export_first_valid, precheck
from exporter.interface import Axis, Interface
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

    interface: Interface
    batching_blocker: str

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and example inputs.

        An adapter keeps the registered module as ``module``.
        """


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
    numbered = ", ".join(f"{served} is '{name}'" for name, served in names.items())
    import torch

    with warnings.catch_warnings(action="ignore"):
        converter = _export(source, folder, references)
    return Conversion(
        format="torchscript",
        backend="pytorch",
        filename=FILENAME,
        interface=_served(source.interface, names, target.rows),
        converter=converter,
        versions={"torch": torch.__version__.partition("+")[0]},
        bytes=(folder / FILENAME).stat().st_size,
        names=names,
        facts={"names": {served: name for name, served in names.items()}},
        notes=(f"Triton's pytorch backend numbers tensors: {numbered}.",),
    )


def _export(source: TorchScriptSource, folder: Path, references: ReferenceSet) -> str:
    """Write the file, and return what wrote it."""
    from exporter.formats.torchscript.archive import load_archive, write_archive
    from exporter.formats.torchscript.exporters import ScriptExporter, script_exporters

    module, example = source.torchscript_module()
    interface, blocker = source.interface, source.batching_blocker

    def write(exporter: ScriptExporter, place: Path) -> str:
        name, export = exporter
        try:
            write_archive(export(), place / FILENAME)
        except Exception as error:
            detail = first_line(error)
            if blocker:
                script = f"torch.jit.script says: {detail}"
                detail = f"{blocker}, of which a trace would keep one, and {script}"
            raise ValidationFailedError(
                f"the model cannot be written as TorchScript: {detail}",
                hint="Export it with --format onnx, or rewrite what it names and log the model "
                "again.",
                kind="convert",
            ) from error
        return name

    def is_valid(_: str, place: Path) -> bool:
        return not precheck(
            lambda: load_archive(place / FILENAME, interface), references, interface.outputs
        )

    return export_first_valid(
        # What branches on values for a whole batch may take another branch for other values.
        script_exporters(module, example, interface, branches=bool(blocker)),
        write,
        is_valid,
        folder,
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

    def fixed(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        leading = axes[:1] if rows is None or not axes or isinstance(axes[0], int) else (rows,)
        return (*leading, *axes[1:])

    return Interface(
        tuple(replace(t, name=names[t.name], axes=fixed(t.axes)) for t in interface.inputs),
        tuple(replace(tensor, name=names[tensor.name]) for tensor in interface.outputs),
    )
