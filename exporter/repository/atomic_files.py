"""Atomic and durable writes to local disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from exporter.errors import StlabError, UnavailableError, UsageError

__all__ = ["copy_file", "durable", "open_to_readers", "replace_file", "sync", "translate_errors"]


def replace_file(path: Path, content: bytes, staging: Path) -> None:
    """Replace a file's content atomically; staging is a folder on the same filesystem."""
    temporary = staging / f"{path.name}.{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file without its times and modes, by a hard link if the filesystem supports it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def open_to_readers(folder: Path) -> None:
    """Set the modes 755 and 644, so that a server under another user can read a tree."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def durable(folder: Path) -> None:
    """Flush every file and folder of a tree to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Flush one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translate_errors(root: Path) -> Iterator[None]:
    """Translate the errors of the filesystem.

    Raises:
        UnavailableError: The disk is full, read-only or failing.
        UsageError: This user cannot write the repository's folder, or its staging folder is on
            another filesystem.
    """
    try:
        yield
    except StlabError:
        raise
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise UsageError(
                f"{root} is a mount point, so nothing can be renamed into it from its parent",
                hint="Use a folder below it as --repository.",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}:
            raise UsageError(
                f"the model repository {root} cannot be written: {error.strerror}",
                hint="Give this user the right to write it and its parent folder.",
            ) from error
        raise UnavailableError(
            f"writing to the model repository {root} failed: {error.strerror or error}",
            hint="Free or repair the disk, then run the same command again.",
        ) from error
