"""Copies artifacts out of MLflow's stores, and says why one could not be copied."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import UnavailableError
from exporter.registry.adapter import NOT_FOUND, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["copy_artifact"]

_RUNS = "runs:/"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OTHER_FAULTS = (
    *(errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
)
_MISSING = ("No such ", "(404)", "(NoSuchKey)")


def copy_artifact(client: Any, uri: str, folder: Path) -> Path:
    """Copy an artifact into a folder and return where it lies.

    Args:
        client: The ``MlflowClient`` of the registry.
        uri: What names the artifact.
        folder: Where to put it; it need not be there.

    Raises:
        FileNotFoundError: The artifact is missing from its store.
        UnavailableError: This machine cannot hold the copy; the cause is named.
    """
    from mlflow.artifacts import download_artifacts

    try:
        if uri.startswith(_RUNS):
            return Path(_copy_of_run(client, uri, folder))
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:
        fault = _fault(error, folder)
        if fault:
            hint = "Free the disk" if fault in map(os.strerror, _FULL) else "Remove the cause"
            raise UnavailableError(
                f"{shown(uri)} could not be copied to {folder.parent}: {fault}",
                hint=f"{hint}, then run the same command again.",
            ) from error
        if _is_missing(error):
            raise FileNotFoundError(uri) from error
        raise


def _copy_of_run(client: Any, uri: str, folder: Path) -> str:
    """Copy from the run's own location: of a ``runs:/`` MLflow does not say what went wrong."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run_id, _, path = uri.removeprefix(_RUNS).partition("/")
    root = client.get_run(run_id).info.artifact_uri
    folder.mkdir(parents=True, exist_ok=True)
    store = get_artifact_repository(root, tracking_uri=client.tracking_uri)
    copied: str = store.download_artifacts(path, str(folder))
    return copied


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
