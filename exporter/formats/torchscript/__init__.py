"""TorchScript for Triton's pytorch backend."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.base import Conversion
from exporter.interface import Interface, Tensor

if TYPE_CHECKING:
    import torch

    from exporter.formats.base import Target
    from exporter.parity.reference_set import ReferenceSet
    from exporter.sources.base import Source

__all__ = ["FILENAME", "TorchScriptSource", "convert"]

FILENAME = "model.pt"
SERVED = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
"""The datatypes that the pytorch backend takes and gives, but for lists of strings."""


@runtime_checkable
class TorchScriptSource(Protocol):
    """A source that is a torch module."""

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and what to call it with.

        A module that adapts the registered one holds that as ``module``.
        """


class _TorchSource(TorchScriptSource, Protocol):
    interface: Interface
    batching_blocker: str


def convert(source: Source, folder: Path, target: Target, references: ReferenceSet) -> Conversion:
    """Write ``model.pt`` in the first way whose file answers as the reference does.

    Where none does, the first that could be written stays: the proof says what is wrong with it.
    See `exporter.formats.convert`.
    """
    if not isinstance(source, TorchScriptSource):
        raise ValidationFailedError(
            f"a model of the flavor {source.flavor} has no TorchScript form, which torch alone has",
            hint="Export it with --format onnx.",
            kind="format",
        )
    _check_datatypes(source.interface)
    names = _served_names(source.interface)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = _write_first_right(source, folder, references)
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
        notes=(_told(names),),
    )


def _write_first_right(source: _TorchSource, folder: Path, references: ReferenceSet) -> str:
    """Write the file, and return what wrote it.

    Raises:
        ValidationFailedError: No way leads to a file.
    """
    from exporter.formats.torchscript.archive import write_archive
    from exporter.formats.torchscript.exporters import script_exporters
    from exporter.formats.torchscript.precheck import precheck

    module, example = source.torchscript_module()
    # What decides by values for a whole batch does not look alike for all values either.
    ways = script_exporters(
        module, example, source.interface, branches=bool(source.batching_blocker)
    )
    written: list[tuple[Path, str]] = []
    refused: Exception | None = None
    with tempfile.TemporaryDirectory(prefix="ways-", dir=folder.parent) as scratch:
        for number, (name, way) in enumerate(ways):
            path = Path(scratch, str(number), FILENAME)
            path.parent.mkdir()
            try:
                write_archive(way(), path)
            except Exception as error:  # noqa: BLE001 - whatever torch or the module raises
                refused = refused or error
                continue
            written.append((path, name))
            last = number == len(ways) - 1 and len(written) == 1
            if last or not precheck(path, source.interface, references):
                written = written[-1:]
                break
        if not written:
            raise _not_written(refused, source.batching_blocker)
        path, name = written[0]
        path.rename(folder / FILENAME)
    return name


def _not_written(refused: Exception | None, branches: str) -> ValidationFailedError:
    detail = first_line(refused) if refused is not None else "there is no way"
    if branches:
        detail = f"{branches}, of which a trace would keep one, and torch.jit.script says: {detail}"
    error = ValidationFailedError(
        f"the model cannot be written as TorchScript: {detail}",
        hint="Export it with --format onnx, or write what it names otherwise and log it again.",
        kind="convert",
    )
    error.__cause__ = refused
    return error


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
    """The backend tells tensors apart by the number in their names, and has no other names."""
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
    """The interface under the served names, with the leading axis of inputs fixed where asked."""

    def fixed(tensor: Tensor) -> Tensor:
        if rows is None or not tensor.axes or isinstance(tensor.axes[0], int):
            return tensor
        return replace(tensor, axes=(rows, *tensor.axes[1:]))

    return Interface(
        tuple(replace(fixed(tensor), name=names[tensor.name]) for tensor in interface.inputs),
        tuple(replace(tensor, name=names[tensor.name]) for tensor in interface.outputs),
    )


def _told(names: dict[str, str]) -> str:
    pairs = ", ".join(f"{served} is '{name}'" for name, served in names.items())
    return f"Triton's pytorch backend numbers tensors: {pairs}."


def _versions() -> dict[str, str]:
    import torch

    return {"torch": torch.__version__.partition("+")[0]}
