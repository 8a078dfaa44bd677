"""What a model's directory looks like, and whether one that is found looks so."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from exporter.bundle import CONFIG, MANIFEST, REPORT, WARMUP
from exporter.errors import ConflictError, ValidationFailedError
from exporter.names import served_version
from exporter.repository.atomic_files import copy_file
from exporter.triton.model_config import parse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from exporter.bundle import Bundle

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
    """A model's directory, wherever it lies."""

    def __str__(self) -> str: ...

    def entries(self, folder: str = "") -> Collection[str]:
        """Return the names directly in it, or in a folder of it."""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, relative to the directory."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is none."""

    def holds(self, bundle: Bundle, name: str, at: str) -> bool:
        """Whether a file is the one that a bundle knows under a name."""

    def begins(self, bundle: Bundle, name: str, at: str) -> bool:
        """Whether a file is the beginning of the one that a bundle has under a name.

        Args:
            bundle: A bundle with all of its files at hand.
            name: The bundle's file.
            at: The file in the directory.
        """


def version_files(bundle: Bundle) -> tuple[str, ...]:
    """Return the files of a version's directory, the manifest last.

    What the manifest does not name nobody has proven, and a server runs a .so that it finds.
    """
    report = [REPORT] if (bundle.path / REPORT).is_file() else []
    return (*bundle.files, *report, MANIFEST)


def warmup_files(bundle: Bundle) -> Iterator[str]:
    """Return the files of a bundle that lie in the model's directory as well."""
    return (name for name in bundle.files if name.startswith(f"{WARMUP}/"))


def lay_out(bundle: Bundle, folder: Path, config: str) -> None:
    """Lay a bundle out as a model directory that serves it, by links to the bundle's files.

    Args:
        bundle: The bundle.
        folder: The model directory to make; its name must be the model's.
        config: The text of its config.pbtxt.
    """
    version = folder / str(bundle.version)
    for name in version_files(bundle):
        copy_file(bundle.path / name, version / name)
    for name in warmup_files(bundle):
        copy_file(bundle.path / name, folder / name)
    (folder / CONFIG).write_text(config)


def versions_at(place: ModelDir) -> tuple[int, ...]:
    """Return the versions that lie in a model's directory, in order."""
    found = {name: served_version(name) for name in place.entries()}
    return tuple(
        sorted(v for name, v in found.items() if v is not None and place.has(f"{name}/{MANIFEST}"))
    )


def live_config(place: ModelDir) -> Any:
    """Return a model directory's configuration, or None where there is none.

    Raises:
        ValidationFailedError: It cannot be read, or is cut short.
    """
    content = place.read(CONFIG)
    if content is None:
        return None
    config = parse(content.decode(errors="replace"), where=f"{place}/{CONFIG}")
    # The backend is the last that stlab writes.
    if not config.backend and not config.platform:
        raise ValidationFailedError(
            f"{place}/{CONFIG} is cut short: it names no backend",
            hint="Export the served version again, which writes the file again.",
            kind="config",
        )
    return config


def served_versions(place: ModelDir) -> tuple[int, ...]:
    """Return the versions that a model's live config names.

    Raises:
        ValidationFailedError: It cannot be read.
    """
    config = live_config(place)
    return () if config is None else tuple(config.version_policy.specific.versions)


def reject_foreign_files(place: ModelDir, unfinished: Collection[int] = ()) -> None:
    """Reject a model directory that stlab did not create.

    A config that is damaged passes: the next export writes it again.

    Args:
        place: The directory, which need not be there.
        unfinished: Versions that may lack their manifest, since we left them so.

    Raises:
        ConflictError: It holds a version without manifest, code that a server would run, or a
            config that leaves it to the server which versions are served.
    """
    found = ""
    for name in sorted(place.entries()):
        # A directory that begins with a digit is a version to Triton.
        if name[:1].isdigit() and not place.has(f"{name}/{MANIFEST}"):
            if served_version(name) not in unfinished:
                found = f"'{name}', a version without {MANIFEST}"
        elif name.rpartition(".")[2] in _CODE and "." in name:
            found = f"'{name}', which a server would run"
    config = None
    with suppress(ValidationFailedError):
        config = live_config(place)
    if config is not None and not config.version_policy.specific.versions:
        found = f"a {CONFIG} that names no versions"
    if found:
        raise ConflictError(
            f"{place} was not made by stlab alone: it holds {found}",
            hint="Move it out of the repository, or export to another --repository.",
        )
