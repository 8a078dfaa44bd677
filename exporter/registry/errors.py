"""Check that a registry answers, and translate the errors of its libraries, without secrets."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
)
from exporter.registry.bounds import exchange
from exporter.registry.transport import probe
from exporter.text.redaction import redact

__all__ = ["NOT_FOUND", "check_reachable", "quiet_progress", "translate_errors"]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 8.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED"})


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Limit what is exchanged with a registry, and translate the errors of its libraries.

    Raises:
        NotFoundError: MLflow reports that something does not exist.
        ConflictError: MLflow refuses the request, or the registry redirects to another host.
        UnavailableError: Any other failure, or a timeout.
    """
    try:
        with warnings.catch_warnings(), exchange(uri):
            warnings.simplefilter("ignore")
            yield
    except StlabError:
        raise
    except Exception as error:
        wrapped = _wrapped_error(error)
        if wrapped is not None:
            raise wrapped from None
        code = getattr(error, "error_code", "")
        message = redact(" ".join(str(error).split()))[:500]
        if code in NOT_FOUND:
            raise NotFoundError(
                f"the registry says: {message}", hint="Check the name and MLFLOW_TRACKING_URI."
            ) from error
        if code == "ENDPOINT_NOT_FOUND":
            raise UnavailableError(
                f"{redact(uri)} is not an MLflow server: {message}",
                hint="Set MLFLOW_TRACKING_URI to the address of an MLflow server.",
            ) from error
        if code in _REFUSED:
            raise ConflictError(
                f"the registry refuses: {message}",
                hint="Check the permissions of the account in MLFLOW_TRACKING_USERNAME or _TOKEN.",
            ) from error
        raise UnavailableError(
            f"the registry at {redact(uri)} failed: {message}",
            hint="Nothing was promoted; retry later.",
        ) from error


def check_reachable(uri: str) -> None:
    """Check within seconds that a registry answers.

    Raises:
        UnavailableError: The registry does not answer.
        UsageError: The URI is malformed.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        # The text of the error may hold a part of a password.
        raise UsageError(
            f"MLFLOW_TRACKING_URI is not a URI: {redact(uri)}",
            hint="Use http://host:port, sqlite:///file.db or another URI that MLflow supports; in "
            "a password write '/', '?', '#', '@' and ':' as %2F, %3F, %23, %40 and %3A.",
        ) from error
    if parts.scheme in {"http", "https"}:
        import requests

        try:
            probe(uri, "/health", ANSWER_SECONDS)
        except requests.exceptions.SSLError:
            return  # the server answers; MLflow has its own settings for certificates
        except requests.exceptions.RequestException as error:
            raise _unreachable(uri, str(error)) from error
    elif parts.scheme.startswith("sqlite"):
        path = Path(unquote(uri.partition(":///")[2].partition("?")[0]))
        # MLflow would create a registry in an empty file.
        _check_exists(uri, exists=path.is_file() and path.stat().st_size > 0)
    elif parts.scheme in {"", "file"}:
        _check_exists(uri, exists=Path(unquote(parts.path)).is_dir())
    elif parts.hostname and port:
        try:
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
        except OSError as error:
            raise _unreachable(uri, str(error)) from error


def _check_exists(uri: str, *, exists: bool) -> None:
    if not exists:
        raise _unreachable(uri, "no such file")


def _unreachable(uri: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"no MLflow registry answers at {redact(uri)}: {redact(reason)[:300]}",
        hint="Start it, or set MLFLOW_TRACKING_URI to its address.",
    )


def _wrapped_error(error: BaseException) -> StlabError | None:
    """Return the `StlabError` that MLflow has wrapped in an error of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, StlabError):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """Disable MLflow's progress bars."""
    previous = os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"]
        else:
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = previous
