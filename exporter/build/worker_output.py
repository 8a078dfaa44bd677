"""Validate the output of the worker process, which is untrusted.

A model's own code can write whatever the worker can. So no link is followed, nothing is unpickled
or read without bounds, and malformed output ends the export.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from exporter.build.config_allowlist import check_config
from exporter.build.worker_schema import Event, Manifest, Outcome
from exporter.bundle import SAMPLES, Bundle
from exporter.errors import ValidationFailedError
from exporter.parity.evidence import Batching
from exporter.parity.reference_set import ReferenceSet
from exporter.parity.samples import load_samples
from exporter.text.terminal import safe_lines

if TYPE_CHECKING:
    from exporter.build.builder import BuildJob

__all__ = ["malformed", "read_event", "read_outcome", "read_reference_set", "take_bundle"]

_T = TypeVar("_T")
_MAX_OUTCOME = 16 << 20
_MANIFEST_ROOM = 1 << 20


def malformed(what: str) -> ValidationFailedError:
    """Return the error for output that stlab's own code would not write."""
    return ValidationFailedError(
        f"the model's process {what}",
        hint="The model's own code, or a library that loads the model, may be the cause. Load and "
        "run the version as it was logged; if that works, please report this.",
        kind="artifact",
    )


def read_event(line: bytes) -> Event:
    """Parse a line of the worker's stdout.

    Raises:
        ValidationFailedError: The line is not an event.
    """
    try:
        return Event.model_validate_json(line)
    except ValidationError as error:
        shown = line[:80].decode(errors="replace")
        raise malformed(f"sent an unexpected line: {shown!r}") from error


def read_outcome(path: Path) -> Outcome:
    """Read the worker's result.

    Raises:
        ValidationFailedError: The file is missing or malformed.
    """
    try:
        return Outcome.model_validate_json(_regular(path, _MAX_OUTCOME))
    except (OSError, ValueError) as error:  # pydantic's error is one
        raise malformed(f"left no readable result: {path.name}") from error


def read_reference_set(path: Path, batching: Batching, *, slow: bool) -> ReferenceSet:
    """Read the reference set that the candidate must reproduce.

    Raises:
        ValidationFailedError: The file is damaged, or unpacks to more than its size.
    """
    _check_archive(path, path, stored=True)
    return _read(path, lambda: load_samples(path, batching, slow=slow))


def take_bundle(left: Path, references: Path, job: BuildJob) -> Bundle:
    """Validate the worker's bundle, and move it into the folder of the job.

    Raises:
        ValidationFailedError: The bundle holds anything but plain files, its manifest is not that
            of the job, or its config would make a server run anything but the model.
    """
    _check_files(left)
    bundle = Bundle.open(left, job.model, job.version)
    try:
        manifest = Manifest.model_validate(dict(bundle.manifest))
    except ValidationError as error:
        raise malformed(f"left an unexpected manifest: {error.errors()[0]['loc']}") from error
    if manifest.settings != dict(job.settings) or manifest.format != job.settings["format"]:
        raise malformed("built a bundle with other settings")
    check_config(bundle)
    _check_archive(left / SAMPLES, references)
    if job.allow_pickle:
        # Without pickles only stlab's own code wrote the files.
        bundle.verify()
        if manifest.format == "onnx":
            _check_external(bundle)
    job.folder.rmdir()
    left.rename(job.folder)
    return Bundle(job.folder, bundle.manifest)


def _check_external(bundle: Bundle) -> None:
    """Reject an ONNX file with weights outside the bundle: not every server does."""
    import onnx

    from exporter.sources.onnx.graphs import external_tensors

    path = bundle.path / bundle.manifest["filename"]
    proto = _read(path, lambda: onnx.load(path, load_external_data=False))
    for tensor in external_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value not in bundle.files:
                raise malformed(f"left a model with weights outside the bundle: {entry.value!r}")


def _check_files(folder: Path) -> None:
    """Reject links, devices and pipes, which a copy would follow or wait for."""
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = (Path(place) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise malformed(f"left something other than a plain file: {name!r}")


def _regular(path: Path, most: int) -> bytes:
    """Return the content of a plain file.

    Raises:
        ValueError: The path is not a plain file, or the file has more than ``most`` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise ValueError(f"{path.name} is not a plain file of at most {most} bytes")
        return file.read(most)


def _check_archive(path: Path, limit: Path, *, stored: bool = False) -> None:
    """Reject an npz that unpacks to more bytes than another file has.

    The samples of a bundle are a part of the reference set, which is not compressed.
    """

    def check() -> None:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError("it is not a plain file")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if stored and any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > limit.stat().st_size + _MANIFEST_ROOM:
            raise ValueError("it unpacks to too many bytes")

    _read(path, check)


def _read(path: Path, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except ValidationFailedError:
        raise
    except Exception as error:
        # Readers of arrays and archives raise any exception on malformed bytes.
        raise malformed(
            f"left {path.name}, which cannot be read: {safe_lines(str(error))}"
        ) from error
