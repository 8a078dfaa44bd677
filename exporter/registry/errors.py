"""Whether a registry answers, and what its libraries raise in words of ours, without secrets."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
)
from exporter.registry.bounds import exchange
from exporter.registry.transport import knock
from exporter.text.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NOT_FOUND", "check_reachable", "quiet_progress", "translate_errors"]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 8.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED"})


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Bound what is exchanged with a registry, and translate what its libraries raise.

    Raises:
        NotFoundError: MLflow says that something does not exist.
        ConflictError: MLflow refuses the request, or the registry leads to another host.
        UnavailableError: Anything else that went wrong on the way, or took too long.
    """
    try:
        with warnings.catch_warnings(), exchange(uri):
            warnings.simplefilter("ignore")
            yield
    except StlabError:
        raise
    except Exception as error:
        ours = _ours(error)
        if ours is not None:
            raise ours from None
        code = getattr(error, "error_code", "")
        message = redact(" ".join(str(error).split()))[:500]
        if code in NOT_FOUND:
            raise NotFoundError(
                f"the registry says: {message}", hint="Check the name and MLFLOW_TRACKING_URI."
            ) from error
        if code == "ENDPOINT_NOT_FOUND":
            raise UnavailableError(
                f"what answers at {redact(uri)} is no MLflow server: {message}",
                hint="Set MLFLOW_TRACKING_URI to where one runs.",
            ) from error
        if code in _REFUSED:
            raise ConflictError(
                f"the registry refuses: {message}",
                hint="Check the permissions of the account in MLFLOW_TRACKING_USERNAME or _TOKEN.",
            ) from error
        raise UnavailableError(
            f"the registry at {redact(uri)} failed: {message}",
            hint="Nothing was promoted; try again once it answers.",
        ) from error


def check_reachable(uri: str) -> None:
    """Check within seconds that a registry answers.

    Raises:
        UnavailableError: It does not.
        UsageError: The URI cannot be one.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        # Its text may be a part of a password.
        raise UsageError(
            f"MLFLOW_TRACKING_URI is not a URI: {redact(uri)}",
            hint="Write it as http://host:port, sqlite:///file.db or another that MLflow knows; in "
            "a password write '/', '?', '#', '@' and ':' as %2F, %3F, %23, %40 and %3A.",
        ) from error
    if parts.scheme in {"http", "https"}:
        import requests

        try:
            knock(uri, "/health", ANSWER_SECONDS)
        except requests.exceptions.SSLError:
            return  # it answers; MLflow has settings of its own for certificates
        except requests.exceptions.RequestException as error:
            raise _unreachable(uri, str(error)) from error
    elif parts.scheme.startswith("sqlite"):
        path = Path(unquote(uri.partition(":///")[2].partition("?")[0]))
        # MLflow would make a registry of an empty file.
        _check_there(uri, path.is_file() and path.stat().st_size > 0)
    elif parts.scheme in {"", "file"}:
        _check_there(uri, Path(unquote(parts.path)).is_dir())
    elif parts.hostname and port:
        try:
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
        except OSError as error:
            raise _unreachable(uri, str(error)) from error


def _check_there(uri: str, there: bool) -> None:
    if not there:
        raise _unreachable(uri, "there is no such file")


def _unreachable(uri: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"no MLflow registry answers at {redact(uri)}: {redact(reason)[:300]}",
        hint="Start it, or set MLFLOW_TRACKING_URI to where it runs.",
    )


def _ours(error: BaseException) -> StlabError | None:
    """Return the error of our own that MLflow has put into one of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, StlabError):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """Keep MLflow from drawing bars of its own."""
    previous = os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"]
        else:
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = previous
