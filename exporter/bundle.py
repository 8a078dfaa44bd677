"""The bundle: the immutable, content-addressed result of one conversion.

A bundle is a folder. ``manifest.json`` lists every file with its size and its sha256; the bundle's
own sha256 is that of the canonical manifest. The manifest holds no time and no host, so the same
version with the same settings gives the same sha256. ``report.json`` is in the folder but not in
the manifest, since measurements differ from run to run; it holds the bundle's sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from exporter.bounded_text import UNFIT, parse_json, read_bounded, reading
from exporter.errors import ValidationFailedError
from exporter.interface import InterfaceEntry, Tensor
from exporter.names import artifact_path

__all__ = [
    "CONFIG",
    "MANIFEST",
    "REPORT",
    "SAMPLES",
    "WARMUP",
    "BatchingEntry",
    "Bundle",
    "BundleSettings",
    "FileEntry",
    "Manifest",
    "file_digest",
    "folder_digest",
    "json_number",
]

SCHEMA = 1
MANIFEST = "manifest.json"
CONFIG = "config.pbtxt"
SAMPLES = "samples.npz"
REPORT = "report.json"
WARMUP = "warmup"
_CHUNK = 2**20
_MOST_CONFIG = 16 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BundleSettings(TypedDict):
    """What decides a bundle's content, besides the version itself.

    A setting that was added later is only there where it is set: a bundle without it keeps its
    sha256.
    """

    format: str
    precision: str
    batching: str
    max_batch_size: int
    release: str
    samples: str | None
    seed: int
    max_queue_size: NotRequired[int]
    accelerator: NotRequired[str]
    preprocessing: NotRequired[str]
    postprocessing: NotRequired[str]


class FileEntry(TypedDict):
    """A file in a manifest."""

    sha256: str
    bytes: int


class BatchingEntry(TypedDict):
    """The batching in a manifest; a ``max_batch_size`` of 0 means none."""

    mode: str
    max_batch_size: int
    rows: int | None


class Manifest(TypedDict):
    """The content of ``manifest.json``.

    What is not required is missing in bundles of older releases, or added by some formats.
    """

    schema: int
    model: str
    version: int
    source: dict[str, str]
    format: str
    precision: str
    backend: str
    filename: str
    converter: str
    libraries: dict[str, str]
    target: NotRequired[dict[str, str]]
    interface: InterfaceEntry
    batching: BatchingEntry
    settings: NotRequired[BundleSettings]
    files: dict[str, FileEntry]
    names: NotRequired[dict[str, str]]
    frozen_axes: NotRequired[list[str]]
    reduced: NotRequired[dict[str, Any]]
    accelerator: NotRequired[dict[str, Any]]
    tensorrt: NotRequired[dict[str, Any]]
    evidence: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on local disk: its folder, and the content of its ``manifest.json``."""

    path: Path
    manifest: Manifest

    @classmethod
    def seal(cls, path: Path, facts: Mapping[str, Any]) -> Bundle:
        """Write the manifest of the files in a folder: the facts, the schema and every file.

        Raises:
            ValidationFailedError: A file has a name that a bundle's may not have.
        """
        files = {}
        for name in _file_names(path):
            _check_file_name(name)
            size = (path / name).stat().st_size
            files[name] = FileEntry(sha256=file_digest(path / name), bytes=size)
        manifest = cast("Manifest", {"schema": SCHEMA, **facts, "files": files})
        return cls(path, manifest).with_facts()

    def with_facts(self, **facts: Any) -> Bundle:
        """Write the manifest with further facts; the files stay as they are."""
        manifest = cast("Manifest", {**self.manifest, **facts})
        (self.path / MANIFEST).write_bytes(_canonical(manifest))
        return Bundle(self.path, manifest)

    @classmethod
    def open(cls, path: Path, model: str, version: int) -> Bundle:
        """Read the manifest of a version's bundle; the files are checked by `verify`.

        Raises:
            ValidationFailedError: The manifest is missing, unreadable, of another schema, or about
                another version.
        """
        with reading(
            f"{path.name}/{MANIFEST}",
            hint="The bundle is damaged; export the version again.",
            kind="bundle",
        ):
            manifest = parse_json(path / MANIFEST, strict=True)
            schema, found = manifest["schema"], (manifest["model"], manifest["version"])
            if schema != SCHEMA:
                raise ValidationFailedError(
                    f"the bundle's manifest has schema {schema}, this release reads {SCHEMA}",
                    hint="Export the version again with this release.",
                    kind="bundle",
                )
            if found != (model, version):
                raise ValidationFailedError(
                    f"the bundle is of {found[0]!r} version {found[1]!r}, not of '{model}' "
                    f"{version}",
                    hint=f"Prove this version itself: stlab-export {model} --alias staging",
                    kind="bundle",
                )
            _check_manifest(manifest)
        return cls(path, manifest)

    @property
    def sha256(self) -> str:
        """The digest of the canonical manifest, and so of everything in the bundle."""
        return hashlib.sha256(_canonical(self.manifest)).hexdigest()

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """The files by relative name."""
        return self.manifest["files"]

    @property
    def model(self) -> str:
        """The registered model's name."""
        return self.manifest["model"]

    @property
    def version(self) -> int:
        """The registered model's version."""
        return int(self.manifest["version"])

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs of the model."""
        return tuple(
            Tensor(entry["name"], entry["datatype"], tuple(entry["shape"]))
            for entry in self.manifest["interface"]["outputs"]
        )

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(entry["bytes"] for entry in self.files.values())

    @property
    def config(self) -> str:
        """The text of config.pbtxt."""
        with reading(f"{self.path.name}/{CONFIG}", hint="Export the version again.", kind="bundle"):
            return read_bounded(self.path / CONFIG, _MOST_CONFIG).decode()

    @property
    def max_batch_size(self) -> int:
        """Rows that Triton may put into one request; 0 where it must not batch."""
        return self.manifest["batching"]["max_batch_size"]

    @property
    def release(self) -> str:
        """The Triton release that the bundle was made for."""
        return str(self.manifest.get("target", {}).get("release", ""))

    def passed_report(self) -> dict[str, Any] | None:
        """Return the bundle's report, if it says that this bundle passed."""
        try:
            report: dict[str, Any] = parse_json(self.path / REPORT)
            passed = report["bundle"] == self.sha256 and report["parity"]["passed"] is True
        except (OSError, *UNFIT):
            return None
        return report if passed else None

    def verify(self) -> None:
        """Read every file and compare it with the manifest.

        Raises:
            ValidationFailedError: A file is missing, differs, or is not in the manifest.
        """
        self.verify_at(set(_file_names(self.path)), lambda name: self.holds(name, self.path / name))

    def verify_at(self, found: Collection[str], holds: Callable[[str], bool]) -> None:
        """Compare the files that were found in a copy with the manifest, which is one of them.

        Raises:
            ValidationFailedError: See `verify`; of a file in the manifest, ``holds`` decides.
        """
        for name in sorted({*self.files, MANIFEST, *found} - {REPORT}):
            if name not in self.files and name != MANIFEST:
                problem = "is not in the manifest"
            elif name not in found:
                problem = "is missing"
            elif not holds(name):
                problem = "is not the file that was proven"
            else:
                continue
            raise ValidationFailedError(
                f"bundle {self.sha256[:12]} of {self.model} {self.version}: {name} {problem}",
                hint="Restore the file, or export the version again from the registry.",
                kind="bundle",
            )

    def digest(self, name: str) -> str:
        """Return the sha256 that a file must have: one in the manifest, or the manifest itself."""
        return self.sha256 if name == MANIFEST else self.files[name]["sha256"]

    def holds(self, name: str, path: Path) -> bool:
        """Whether a file has the content of the bundle's file of a name."""
        return path.is_file() and file_digest(path) == self.digest(name)

    def begins_with(self, name: str, size: int, sha256: str) -> bool:
        """Whether the first bytes of one of the bundle's files have this digest."""
        digest = hashlib.sha256()
        if not (self.path / name).is_file():
            return False
        with (self.path / name).open("rb") as file:
            while size > 0 and (content := file.read(min(size, _CHUNK))):
                digest.update(content)
                size -= len(content)
        return size == 0 and digest.hexdigest() == sha256


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(path: Path) -> str:
    """Return one sha256 over the names and the contents of all files below a folder."""
    digest = hashlib.sha256()
    for name in _file_names(path):
        digest.update(f"{name}\0{file_digest(path / name)}\n".encode())
    return digest.hexdigest()


def json_number(value: float) -> float | None:
    """Return a number as JSON can hold it: None for NaN and the infinities."""
    return float(value) if abs(value) < float("inf") else None


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Check the parts of a manifest that the rest of stlab relies on."""
    for name, entry in manifest["files"].items():
        _check_file_name(name)
        _expect(_SHA256.fullmatch(entry["sha256"]), f"the sha256 of {name}")
        _expect(type(entry["bytes"]) is int and entry["bytes"] >= 0, f"the size of {name}")
    for tensor in (*manifest["interface"]["inputs"], *manifest["interface"]["outputs"]):
        fits = isinstance(tensor["name"], str) and isinstance(tensor["datatype"], str)
        _expect(fits and all(type(n) is int for n in tensor["shape"]), "its interface")
    rows = manifest["batching"]["max_batch_size"]
    _expect(type(rows) is int and rows >= 0, "its batching")
    _expect(isinstance(manifest["format"], str), "its format")
    _expect(isinstance(manifest.get("settings", {}), dict), "its settings")
    _expect(isinstance(manifest.get("target", {}), dict), "its target")


def _expect(right: object, what: str) -> None:
    if not right:
        raise ValueError(f"{what} is damaged")


def _check_file_name(name: str) -> None:
    """Reject a name that would leave the bundle, or that a server would take for code.

    Triton runs ``libtriton_<backend>.so`` and ``model.py`` where it finds them in a model's folder.
    The report is written later, and the manifest cannot hold its own digest.
    """
    path = artifact_path(name)
    if path.suffix in {".so", ".py"} or ".so." in path.name or name in {MANIFEST, REPORT}:
        raise ValidationFailedError(
            f"a bundle may not hold a file called {name!r}",
            hint="Log the model again; its files must be data, under names of their own.",
            kind="unsafe",
        )


def _file_names(path: Path) -> list[str]:
    walked = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sorted(file.relative_to(path).as_posix() for file in walked)


def _canonical(manifest: Manifest) -> bytes:
    text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"
