"""Download a registry's artifacts into a folder, bounded by the listed sizes and the free disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import NotFoundError, StlabError, UnavailableError, causes
from exporter.names import artifact_path
from exporter.registry.bounds import exchange
from exporter.registry.errors import NOT_FOUND, translate_errors
from exporter.registry.locations import locate

if TYPE_CHECKING:
    from exporter.registry.client import Registry

__all__ = ["download"]

_MAX_ENTRIES = 100_000
_OVERHEAD = 64 << 10  # bytes of headers and messages that a store may send with a file
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OTHER_FAULTS = (
    *(errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
)
_MISSING = ("No such ", "(404)", "(NoSuchKey)")


def download(registry: Registry, address: str, folder: Path, what: str, hint: str) -> Path:
    """Download a folder of artifacts from an address in a tag or in a version's source.

    The target folder is created if it does not exist, and returned. The hint is for artifacts that
    are missing.

    Raises:
        ConflictError: The address is not followed; the kind is ``address``.
        NotFoundError: The artifacts do not exist.
        ValidationFailedError: A file's name points outside the folder.
        UnavailableError: The registry or the store failed, or this machine cannot store the files.
    """
    gone = NotFoundError(f"{what} is gone from the registry", hint=hint)
    with translate_errors(registry.uri):
        try:
            copied = _copy(registry, address, folder, what)
        except StlabError:
            raise
        except Exception as error:
            fault = _local_fault(error, folder)
            if fault:
                raise _local_error(folder, what, fault) from error
            if _is_missing(error):
                raise gone from error
            raise
    if not copied:
        raise gone
    return folder


def _copy(registry: Registry, address: str, folder: Path, what: str) -> int:
    """Copy the files of an address, and return how many there are."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder.mkdir(parents=True, exist_ok=True)
    location = locate(registry, address, what)
    store = get_artifact_repository(location, tracking_uri=registry.uri)
    files = list(_files(store))
    needed, free = sum(size or 0 for _, size in files), shutil.disk_usage(folder).free
    if needed > free:
        full = f"{os.strerror(errno.ENOSPC)}: it has {needed:,} bytes, and {free:,} are free"
        raise _local_error(folder, what, full)
    for name, size in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        max_bytes = shutil.disk_usage(folder).free if size is None else size
        with exchange(registry.uri, max_bytes=max_bytes + _OVERHEAD, transfer=True):
            store._download_file(name, str(target))  # noqa: SLF001 - every store of MLflow has it
    return len(files)


def _files(store: Any) -> Iterator[tuple[str, int | None]]:
    """Yield the relative name of every file, and its size in bytes if the store reports it."""
    pending: list[str | None] = [None]
    listed = 0
    while pending:
        for entry in store.list_artifacts(pending.pop()):
            listed += 1
            if listed > _MAX_ENTRIES:
                raise UnavailableError(
                    f"the registry lists more than {_MAX_ENTRIES:,} files in one artifact",
                    hint="Log the model again with fewer files.",
                )
            name = str(artifact_path(entry.path))
            if entry.is_dir:
                pending.append(name)
            else:
                yield name, entry.file_size


def _local_error(folder: Path, what: str, fault: str) -> UnavailableError:
    full = any(fault.startswith(os.strerror(code)) for code in _DISK_FULL)
    return UnavailableError(
        f"{what} could not be copied to {folder.parent}: {fault}",
        hint=f"{'Free the disk' if full else 'Remove the cause'}, then run the same command again.",
    )


def _local_fault(error: Exception, folder: Path) -> str:
    """Return the kernel's message if this machine caused the error, else an empty string."""
    # MLflow joins the errors of several files into one message.
    text = str(error)
    codes = {cause.errno for cause in causes(error) if isinstance(cause, OSError)}
    for code in (*_DISK_FULL, *_OTHER_FAULTS):
        if code in codes or f"[Errno {code}]" in text:
            return os.strerror(code)
    if str(folder) in text and _is_missing(error):
        return "its folder was removed"
    return ""


def _is_missing(error: Exception) -> bool:
    """Whether the error of one of MLflow's stores means that an artifact does not exist."""
    # Not any OSError: requests raises them when the server does not answer.
    return (
        isinstance(error, FileNotFoundError)
        or any(phrase in str(error) for phrase in _MISSING)
        or getattr(error, "error_code", "") in NOT_FOUND
    )
