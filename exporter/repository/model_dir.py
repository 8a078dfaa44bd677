"""The layout of a model's directory, and the check of one that exists."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from exporter.bundle import CONFIG, MANIFEST, REPORT, WARMUP, Bundle
from exporter.errors import ConflictError, ValidationFailedError
from exporter.names import served_version
from exporter.repository.atomic_files import copy_file
from exporter.triton.model_config import parse

__all__ = [
    "ModelDir",
    "lay_out",
    "live_config",
    "reject_foreign_files",
    "served_versions",
    "version_files",
    "versions_at",
    "warmup_files",
]

_CODE = frozenset({"so", "py"})


class ModelDir(Protocol):
    """A model's directory, local or on an object store; paths are relative to it."""

    def __str__(self) -> str: ...

    def entries(self, folder: str = "") -> Collection[str]:
        """Return the names directly in the directory, or in a folder of it."""

    def has(self, name: str) -> bool:
        """Whether a file exists."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it does not exist."""

    def holds(self, bundle: Bundle, name: str, at: str) -> bool:
        """Whether the file at a path equals a bundle's file."""

    def begins(self, bundle: Bundle, name: str, at: str) -> bool:
        """Whether the file at a path is the beginning of a local bundle's file."""


def version_files(bundle: Bundle) -> tuple[str, ...]:
    """Return the files of a version's directory, the manifest last.

    Files that the manifest does not list are left out: a server would run a .so that it finds.
    """
    report = [REPORT] if (bundle.path / REPORT).is_file() else []
    return (*bundle.files, *report, MANIFEST)


def warmup_files(bundle: Bundle) -> Iterator[str]:
    """Return the files of a bundle that are in the model's directory as well."""
    return (name for name in bundle.files if name.startswith(f"{WARMUP}/"))


def lay_out(bundle: Bundle, folder: Path, config: str) -> None:
    """Create the model directory that serves a bundle, with links to the bundle's files.

    The folder's name must be the model's.
    """
    version = folder / str(bundle.version)
    for name in version_files(bundle):
        copy_file(bundle.path / name, version / name)
    for name in warmup_files(bundle):
        copy_file(bundle.path / name, folder / name)
    (folder / CONFIG).write_text(config)


def versions_at(model_dir: ModelDir) -> tuple[int, ...]:
    """Return the versions in a model's directory, in order."""
    complete = (name for name in model_dir.entries() if model_dir.has(f"{name}/{MANIFEST}"))
    return tuple(sorted(v for v in map(served_version, complete) if v is not None))


def live_config(model_dir: ModelDir) -> Any:
    """Return the configuration of a model's directory, or None if it has none.

    Raises:
        ValidationFailedError: The file cannot be read, or is truncated.
    """
    content = model_dir.read(CONFIG)
    if content is None:
        return None
    config = parse(content.decode(errors="replace"), where=f"{model_dir}/{CONFIG}")
    # The backend is the last field that stlab writes.
    if not config.backend and not config.platform:
        raise ValidationFailedError(
            f"{model_dir}/{CONFIG} is truncated: the backend is missing",
            hint="Export the served version again, which rewrites the file.",
            kind="config",
        )
    return config


def served_versions(model_dir: ModelDir) -> tuple[int, ...]:
    """Return the versions in a model's live config.

    Raises:
        ValidationFailedError: The config cannot be read.
    """
    config = live_config(model_dir)
    return () if config is None else tuple(config.version_policy.specific.versions)


def reject_foreign_files(model_dir: ModelDir, unfinished: Collection[int] = ()) -> None:
    """Reject a model directory that stlab did not create.

    A damaged config passes: the next export rewrites it.

    An unfinished version may lack its manifest, since an export was interrupted.

    Raises:
        ConflictError: It holds a version without manifest, code that a server would run, or a
            config without a list of versions.
    """
    found = ""
    for name in sorted(model_dir.entries()):
        # A directory that begins with a digit is a version to Triton.
        if name[:1].isdigit() and not model_dir.has(f"{name}/{MANIFEST}"):
            if served_version(name) not in unfinished:
                found = f"'{name}', a version without {MANIFEST}"
        elif name.rpartition(".")[2] in _CODE and "." in name:
            found = f"'{name}', which a server would run"
    config = None
    with suppress(ValidationFailedError):
        config = live_config(model_dir)
    if config is not None and not config.version_policy.specific.versions:
        found = f"a {CONFIG} without a list of versions"
    if found:
        raise ConflictError(
            f"stlab did not create everything in {model_dir}: it holds {found}",
            hint="Move it out of the repository, or export to another --repository.",
        )
