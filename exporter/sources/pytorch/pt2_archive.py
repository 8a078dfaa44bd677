"""Checks a pt2 archive, then loads it.

``torch.export.load`` runs code of the archive's author in many ways: it unpickles sample inputs,
old-style weights and constants of unusual kinds, loads compiled libraries, imports what containers
name, executes source that it prints from names, and evaluates symbolic sizes. docs/security.md
lists them. So every entry and every key of an archive is known here or refused, and torch gets the
objects that were checked, never the file again.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader, _load_constants, _load_state_dict
from torch.export.pt2_archive.constants import ARCHIVE_VERSION_PATH, ARCHIVE_VERSION_VALUE

from exporter.errors import ValidationFailedError, first_line
from exporter.sources.pytorch.pt2_schema import check_example, check_payloads, check_program

__all__ = ["load_program"]

_MODEL = "models/model.json"
_INPUTS = "data/sample_inputs/model.pt"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
# Archives of older releases hold these in place of the two above.
_OLD_WEIGHTS = "data/weights/model.pt"
_OLD_CONSTANTS = "data/constants/model.pt"
_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/[a-z_]{1,32}|extra/.{1,256}|"
    r"data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}|"
    + "|".join(
        map(re.escape, (_MODEL, _INPUTS, _WEIGHTS, _CONSTANTS, _OLD_WEIGHTS, _OLD_CONSTANTS))
    )
)
_MAX_ENTRIES = 100_000
_MAX_JSON = 128 * 1024 * 1024


def load_program(path: Path) -> ExportedProgram:
    """Check an archive and load its program.

    Raises:
        ValidationFailedError: The archive is unreadable, or something in it is not plain data; the
            entry is named.
    """
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        # Torch's own reader: another one might see other entries in the same bytes.
        archive = PT2ArchiveReader(str(path))
        names = _entries(archive, path.stat().st_size)
        if (version := archive.read_string(ARCHIVE_VERSION_PATH)) != ARCHIVE_VERSION_VALUE:
            raise ValueError(f"it is of version {version[:20]!r} of the format")  # noqa: TRY301
        program = _described(archive, _MODEL, check_program)
        weights = _tensors(archive, names, _WEIGHTS, _OLD_WEIGHTS)
        constants = _tensors(archive, names, _CONSTANTS, _OLD_CONSTANTS)
        with warnings.catch_warnings(action="ignore"):
            return ExportedProgramDeserializer().deserialize(
                _dict_to_dataclass(schema.ExportedProgram, program),
                weights,
                constants,
                _example(archive),
            )
    except ValidationFailedError:
        raise
    except Exception as error:
        raise ValidationFailedError(
            f"{path.name} cannot be read as a torch.export archive: {first_line(error)}",
            hint="Log the model again with this release of torch; the file is damaged or too old.",
            kind="artifact",
        ) from error


def _entries(archive: PT2ArchiveReader, size: int) -> set[str]:
    names = list(archive.get_file_names())
    if len(names) > _MAX_ENTRIES:
        _refuse("it", f"holds {len(names)} entries")
    for name in names:
        if not _ENTRY.fullmatch(name):
            _refuse(repr(name[:80]), "is no entry of a program that is plain data")
    if len({name.lower() for name in names}) != len(names):
        _refuse("it", "holds two entries of one name")
    # Torch writes archives uncompressed: what unpacks to more than the file is made to fill memory.
    if sum(archive.archive_file.get_record_size(name) for name in names) > size:
        _refuse("it", "unpacks to more than its own size")
    return set(names)


def _described(archive: PT2ArchiveReader, name: str, check: Callable[[Any], None]) -> Any:
    if archive.archive_file.get_record_size(name) > _MAX_JSON:
        _refuse(name, f"is larger than {_MAX_JSON} bytes")
    content = json.loads(archive.read_bytes(name))
    _check(name, check, content)
    return content


def _tensors(
    archive: PT2ArchiveReader, names: set[str], config: str, old: str
) -> dict[str, torch.Tensor]:
    """Load weights or constants: as the entry *config* says, or all from the entry *old*."""
    if old in names:
        held = _unpickled(archive, old)
        if not isinstance(held, dict):
            _refuse(old, "holds no tensors by name")
        _check(old, check_example, list(held.values()))
        _check(old, check_payloads, {"config": {key: {} for key in held}})
        return held
    _described(archive, config, check_payloads)
    load = _load_state_dict if config == _WEIGHTS else _load_constants
    return load(archive, "model")  # type: ignore[no-any-return]


def _example(archive: PT2ArchiveReader) -> Any:
    if not archive.archive_file.get_record_size(_INPUTS):
        return None
    example = _unpickled(archive, _INPUTS)
    _check(_INPUTS, check_example, example)
    if not (isinstance(example, tuple) and len(example) == 2):
        _refuse(_INPUTS, "is no example of arguments and keywords")
    return example


def _unpickled(archive: PT2ArchiveReader, name: str) -> Any:
    try:
        return torch.load(io.BytesIO(archive.read_bytes(name)), weights_only=True)
    except Exception:  # noqa: BLE001 - what the restricted unpickler dislikes
        _refuse(name, "holds more than tensors; loading it would run code that it carries")


def _check(name: str, check: Callable[[Any], None], content: Any) -> None:
    try:
        check(content)
    except ValueError as error:
        _refuse(name, str(error))


def _refuse(name: str, reason: str) -> NoReturn:
    raise ValidationFailedError(
        f"the pt2 archive was not loaded: {name} {reason}",
        hint="Log the model again with plain tensors as its example, from a machine you trust.",
        kind="unsafe",
    )
