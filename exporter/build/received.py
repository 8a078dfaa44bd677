"""What a model's process says and leaves: foreign data, whatever it is.

Where a model brings code, that code can write whatever its process can. Nothing of it is followed,
unpickled or read without bounds, and what does not look as it should ends the export.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from exporter.build.received_config import check_config
from exporter.bundle import SAMPLES, Bundle
from exporter.errors import ValidationFailedError
from exporter.parity.samples import load_samples
from exporter.text.terminal import safe_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.build.builder import BuildJob
    from exporter.parity.evidence import Batching
    from exporter.parity.reference_set import Truth

__all__ = ["Event", "Outcome", "garbled", "read_event", "read_outcome", "read_truth", "take_bundle"]

_T = TypeVar("_T")
_MOST_OUTCOME = 16 << 20
_MANIFEST_ROOM = 1 << 20


Text = Annotated[str, AfterValidator(safe_lines)]
_Count = Annotated[int, Field(ge=0, lt=1 << 32)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Event(_Strict):
    """A line of a model's process; see `exporter.build.worker`."""

    event: Literal["begin", "say", "end"]
    step: Literal["load", "reference", "convert", "configure"]
    text: Text = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    failed: bool = False


class _Error(_Strict):
    kind: Text
    message: Text
    hint: Text


class _Check(_Strict):
    name: Text
    passed: bool
    detail: Text
    cases: _Count
    margin: float | None


class _Batching(_Strict):
    max_batch_size: _Count
    reason: Text
    rows: _Count | None


class _Measured(_Strict):
    name: Text
    bytes: dict[str, int]
    milliseconds: dict[str, float]
    max_abs_error: dict[str, float | None]
    kept_float32: list[Text]


class _Evidence(_Strict):
    checks: list[_Check]
    notes: list[Text]
    precision: _Measured | Annotated[dict[str, None], Field(max_length=0)]
    batching: _Batching


class Outcome(_Strict):
    """How a model's process says that it ended.

    Attributes:
        error: Kind, message and hint of what went wrong; None where nothing did.
        exit_code: The exit code for it.
        slow: Whether the reference is expensive to ask.
        evidence: As `exporter.parity.evidence.Evidence.state`.
        uncompiled: Source files of modules that have no bytecode.
    """

    error: _Error | None
    exit_code: Annotated[int, Field(ge=0, le=6)]
    slow: bool
    evidence: _Evidence
    uncompiled: list[str]


class _Tensor(_Strict):
    name: str
    datatype: str
    shape: list[int]


class _Interface(_Strict):
    inputs: list[_Tensor]
    outputs: list[_Tensor]


class _File(_Strict):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class _Manifest(BaseModel):
    """What later steps read of a manifest."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    version: int
    format: str
    precision: str
    backend: str
    filename: str
    libraries: dict[str, str]
    target: dict[str, str]
    interface: _Interface
    batching: dict[str, str | int | None]
    settings: dict[str, Any]
    files: dict[str, _File]


def garbled(what: str) -> ValidationFailedError:
    """Return the error for what is not as our own code writes it."""
    return ValidationFailedError(
        f"the model's process {what}",
        hint="The model's own code, or a library that reads the model, may have damaged it. Load "
        "and run the version as it was logged; if that works, please report this.",
        kind="artifact",
    )


def read_event(line: bytes) -> Event:
    """Read a line.

    Raises:
        ValidationFailedError: It is no event.
    """
    try:
        return Event.model_validate_json(line)
    except ValidationError as error:
        shown = line[:80].decode(errors="replace")
        raise garbled(f"sent an unexpected line: {shown!r}") from error


def read_outcome(path: Path) -> Outcome:
    """Read how the process says that it ended.

    Raises:
        ValidationFailedError: It does not say so.
    """
    try:
        return Outcome.model_validate_json(_regular(path, _MOST_OUTCOME))
    except (OSError, ValueError) as error:  # pydantic's error is one
        raise garbled(f"left no result that can be read: {path.name}") from error


def read_truth(path: Path, batching: Batching, *, slow: bool) -> Truth:
    """Read what the candidate has to answer.

    Raises:
        ValidationFailedError: The file is damaged, or holds more than its size says.
    """
    _check_archive(path, path, stored=True)
    return _read(path, lambda: load_samples(path, batching, slow=slow))


def take_bundle(left: Path, truth: Path, job: BuildJob) -> Bundle:
    """Take the bundle that the process left over into the folder of the job.

    Raises:
        ValidationFailedError: It holds anything but plain files, says of itself what it should not,
            or would have a server run something else than a model.
    """
    _check_files(left)
    bundle = Bundle.open(left, job.model, job.version)
    try:
        manifest = _Manifest.model_validate(dict(bundle.manifest))
    except ValidationError as error:
        raise garbled(f"left an unexpected manifest: {error.errors()[0]['loc']}") from error
    if manifest.settings != dict(job.settings) or manifest.format != job.settings["format"]:
        raise garbled("built something else than it was to build")
    check_config(bundle)
    _check_archive(left / SAMPLES, truth)
    if job.allow_pickle:
        # Our own code wrote the files, unless the model's did.
        bundle.verify()
        if manifest.format == "onnx":
            _check_external(bundle)
    job.folder.rmdir()
    left.rename(job.folder)
    return Bundle(job.folder, bundle.manifest)


def _check_external(bundle: Bundle) -> None:
    """Refuse weights that an ONNX file takes from elsewhere: not every server does."""
    import onnx

    from exporter.sources.onnx.graphs import external_tensors

    path = bundle.path / bundle.manifest["filename"]
    proto = _read(path, lambda: onnx.load(path, load_external_data=False))
    for tensor in external_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value not in bundle.files:
                raise garbled(f"left a model with weights in another place: {entry.value!r}")


def _check_files(folder: Path) -> None:
    """Refuse links, devices and pipes: they would be followed, or waited for, by those who copy."""
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = (Path(place) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise garbled(f"left something that is no plain file: {name!r}")


def _regular(path: Path, most: int) -> bytes:
    """Return the content of a plain file.

    Raises:
        ValueError: It is none, or has more bytes than that.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise ValueError(f"{path.name} is no plain file of at most {most} bytes")
        return file.read(most)


def _check_archive(path: Path, beside: Path, *, stored: bool = False) -> None:
    """Refuse an npz that unpacks to more than what lies beside it has bytes.

    What is kept in a bundle is a part of the truth, which is not compressed.
    """

    def check() -> None:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError("it is no plain file")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if stored and any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > beside.stat().st_size + _MANIFEST_ROOM:
            raise ValueError("it unpacks to more than there is")

    _read(path, check)


def _read(path: Path, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except ValidationFailedError:
        raise
    except Exception as error:
        # Readers of arrays and archives raise whatever foreign bytes lead them to.
        raise garbled(
            f"left {path.name}, which cannot be read: {safe_lines(str(error))}"
        ) from error
