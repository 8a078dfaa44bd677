"""Copies artifacts of a registry into a folder, and says why they could not be copied.

No more is taken than the registry lists, and than there is room for.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

from exporter.errors import NotFoundError, StlabError, UnavailableError
from exporter.names import artifact_path
from exporter.registry.bounds import exchange
from exporter.registry.errors import NOT_FOUND, quiet_progress, translate_errors
from exporter.registry.locations import locate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exporter.registry.client import Registry

__all__ = ["download"]

_MOST_ENTRIES = 100_000
_BESIDE = 64 << 10  # what a store may send with a file
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OTHER_FAULTS = (
    *(errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
)
_MISSING = ("No such ", "(404)", "(NoSuchKey)")


def download(registry: Registry, address: str, folder: Path, what: str, hint: str) -> Path:
    """Copy a folder of artifacts.

    Args:
        registry: The registry that names the address.
        address: Of a tag, or of a version's source.
        folder: Where to put the files; it need not be there.
        what: What is copied, for errors.
        hint: What to do where it is missing.

    Returns:
        The folder.

    Raises:
        ConflictError: The address is not one that is followed; its kind is ``address``.
        NotFoundError: Nothing is there.
        ValidationFailedError: A file's name leads out of the folder.
        UnavailableError: The registry or the store went away, or this machine cannot hold the copy;
            the cause is named.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with translate_errors(registry.uri), quiet_progress():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            location = locate(registry, address, what)
            store = get_artifact_repository(location, tracking_uri=registry.uri)
            files = list(_files(store))
            _check_room(folder, sum(size or 0 for _, size in files), what)
            for name, size in files:
                _copy(registry, store, name, size, folder)
        except StlabError:
            raise
        except Exception as error:
            fault = _fault(error, folder)
            if fault:
                raise _no_room(folder, what, fault) from error
            if _is_missing(error):
                raise NotFoundError(f"{what} is gone from the registry", hint=hint) from error
            raise
    if not files:
        raise NotFoundError(f"{what} is gone from the registry", hint=hint)
    return folder


def _files(store: Any) -> Iterator[tuple[str, int | None]]:
    """Yield the relative names and sizes of all files."""
    pending: list[str | None] = [None]
    seen = 0
    while pending:
        for entry in store.list_artifacts(pending.pop()):
            seen += 1
            if seen > _MOST_ENTRIES:
                raise UnavailableError(
                    f"the registry lists more than {_MOST_ENTRIES:,} files in one artifact",
                    hint="Log the model again with fewer files.",
                )
            name = str(artifact_path(entry.path))
            if entry.is_dir:
                pending.append(name)
            else:
                yield name, entry.file_size


def _copy(registry: Registry, store: Any, name: str, size: int | None, folder: Path) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    most = shutil.disk_usage(folder).free if size is None else size
    with exchange(registry.uri, most=most + _BESIDE, transfer=True):
        store._download_file(name, str(target))  # noqa: SLF001 - what every store of MLflow has


def _check_room(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        full = f"{os.strerror(errno.ENOSPC)}: it has {needed:,} bytes, and {free:,} are free"
        raise _no_room(folder, what, full)


def _no_room(folder: Path, what: str, fault: str) -> UnavailableError:
    full = any(fault.startswith(os.strerror(code)) for code in _FULL)
    return UnavailableError(
        f"{what} could not be copied to {folder.parent}: {fault}",
        hint=f"{'Free the disk' if full else 'Remove the cause'}, then run the same command again.",
    )


def _fault(error: Exception, folder: Path) -> str:
    """Return what this machine lacks for a copy, as the kernel says it; empty where nothing."""
    # MLflow puts what several files failed of into one text.
    text = str(error)
    codes = {cause.errno for cause in _causes(error) if isinstance(cause, OSError)}
    for code in (*_FULL, *_OTHER_FAULTS):
        if code in codes or f"[Errno {code}]" in text:
            return os.strerror(code)
    if str(folder) in text and _is_missing(error):
        return "its folder was removed"
    return ""


def _is_missing(error: Exception) -> bool:
    """Whether an artifact is not there, as each of MLflow's stores says it."""
    # Not any OSError: those of requests are, and say that the server does not answer.
    return (
        isinstance(error, FileNotFoundError)
        or any(words in str(error) for words in _MISSING)
        or getattr(error, "error_code", "") in NOT_FOUND
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
