"""Writes a model with the first exporter whose files match the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from exporter.errors import ValidationFailedError

__all__ = ["export_first_valid"]

_Exporter = TypeVar("_Exporter")
_Written = TypeVar("_Written")


def export_first_valid(
    exporters: Sequence[_Exporter],
    write: Callable[[_Exporter, Path], _Written],
    is_valid: Callable[[_Written, Path], bool],
    folder: Path,
) -> _Written:
    """Try exporters in order; keep the files of the first that match the reference.

    Where none match, the first files that could be written stay: the proof says what is wrong.

    Args:
        exporters: At least one, the best first.
        write: Writes the files of an exporter into an empty folder, and describes them.
        is_valid: Whether these files match the reference.
        folder: An empty folder for the files.

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
