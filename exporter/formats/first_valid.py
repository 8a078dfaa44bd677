"""Writes a model with the first exporter whose files match the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from exporter.arrays import Array, Arrays
from exporter.errors import UsageError, ValidationFailedError, first_line
from exporter.interface import Tensor
from exporter.parity.reference_set import ReferenceSet, first_mismatch

__all__ = ["export_first_valid", "precheck"]

_Exporter = TypeVar("_Exporter")
_Written = TypeVar("_Written")


def export_first_valid(
    exporters: Sequence[_Exporter],
    write: Callable[[_Exporter, Path], _Written],
    is_valid: Callable[[_Written, Path], bool],
    folder: Path,
) -> _Written:
    """Try exporters, the best first; keep the files of the first that match the reference.

    Where none match, the first files that could be written stay: the proof says what is wrong.

    Raises:
        ValidationFailedError: No exporter writes a file; the error of the first one.
    """
    written: list[tuple[_Written, Path]] = []
    failures: list[ValidationFailedError] = []
    with tempfile.TemporaryDirectory(prefix="exporters-", dir=folder.parent) as scratch:
        for number, exporter in enumerate(exporters, start=1):
            place = Path(scratch, str(number))
            place.mkdir()
            try:
                written.append((write(exporter, place), place))
            except ValidationFailedError as error:
                failures.append(error)
                continue
            only = number == len(exporters) and len(written) == 1
            if only or is_valid(*written[-1]):
                written = written[-1:]
                break
        if not written:
            raise failures[0]
        result, place = written[0]
        for file in place.iterdir():
            file.rename(folder / file.name)
    return result


def precheck(
    load: Callable[[], Callable[[Arrays], Mapping[str, Array]]],
    references: ReferenceSet,
    outputs: tuple[Tensor, ...],
) -> str:
    """Return how what *load* loads differs from the reference; empty where it does not.

    It proves nothing: what passes here is proven on the wire, by the release that is to serve it.
    """
    try:
        return first_mismatch(load(), references, outputs)
    except UsageError:
        return ""  # without ONNX Runtime the proof alone decides
    except Exception as error:  # noqa: BLE001 - whatever a library raises
        return first_line(error)
