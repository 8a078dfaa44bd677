"""What a model's directory looks like, and whether one that is found looks so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.bundle import CONFIG, MANIFEST, REPORT, WARMUP, Bundle
from exporter.config import parse
from exporter.errors import ConflictError, ValidationFailed
from exporter.repository.files import copy_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_ours", "lay_out", "lies_at", "live_config"]

_CODE = (".so", ".py")


def lay_out(bundle: Bundle, folder: Path, config: str) -> None:
    """Lay a bundle out as a model directory that serves it, by links to the bundle's files.

    Args:
        bundle: The bundle.
        folder: The model directory to make; its name must be the model's.
        config: The text of its config.pbtxt.
    """
    version = folder / str(bundle.version)
    # What the manifest does not name nobody has proven, and a server runs a .so that it finds.
    for name in (*bundle.files, MANIFEST, REPORT):
        if name != REPORT or (bundle.path / name).is_file():
            copy_file(bundle.path / name, version / name)
    for file in (bundle.path / WARMUP).glob("*"):
        copy_file(file, folder / WARMUP / file.name)
    (folder / CONFIG).write_text(config)


def live_config(folder: Path) -> Any:
    """Return a model directory's configuration, or None where there is none.

    Raises:
        ValidationFailed: It cannot be read.
    """
    path = folder / CONFIG
    return parse(path.read_text(), where=str(path)) if path.is_file() else None


def check_ours(folder: Path) -> None:
    """Refuse a model's directory in which others had their hands.

    Args:
        folder: The directory, which need not be there.

    Raises:
        ConflictError: It holds a version without manifest, code that a server would run, or a
            config that leaves it to the server which versions are served.
        ValidationFailed: The config cannot be read.
    """
    found = ""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        # A directory that begins with a digit is a version to Triton.
        if path.name[:1].isdigit() and not (path / MANIFEST).is_file():
            found = f"'{path.name}', a version without {MANIFEST}"
        elif path.suffix in _CODE:
            found = f"'{path.name}', which a server would run"
    config = live_config(folder)
    if config is not None and not config.version_policy.specific.versions:
        found = f"a {CONFIG} that names no versions"
    if found:
        raise ConflictError(
            f"{folder} was not made by stlab alone: it holds {found}",
            hint="Move it out of the repository, or export to another --repository.",
        )


def lies_at(bundle: Bundle, folder: Path) -> tuple[bool, bool]:
    """Return whether a folder is a bundle's, and whether the bundle there is whole."""
    try:
        published = Bundle.open(folder, bundle.model, bundle.version)
    except ValidationFailed:
        return False, False
    if published.sha256 != bundle.sha256:
        return False, False
    try:
        published.verify()
    except ValidationFailed:
        return True, False
    return True, True
