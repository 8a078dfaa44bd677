"""Whether a registry answers, and what its libraries raise in words of ours, without secrets."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NOT_FOUND", "check_reachable", "quiet_progress", "shown", "translated"]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 8.0
_SECRET = re.compile("pass|pwd|token|secret|key|credential", re.IGNORECASE)
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED"})


@contextlib.contextmanager
def translated(uri: str) -> Iterator[None]:
    """Translate what MLflow, requests and SQLAlchemy raise.

    Raises:
        NotFoundError: MLflow says that something does not exist.
        ConflictError: MLflow refuses the request.
        UnavailableError: Anything else that went wrong on the way.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StlabError:
        raise
    except Exception as error:
        code = getattr(error, "error_code", "")
        message = _without_secrets(" ".join(str(error).split())[:500], uri)
        if code in NOT_FOUND:
            raise NotFoundError(
                f"the registry says: {message}", hint="Check the name and MLFLOW_TRACKING_URI."
            ) from error
        if code == "ENDPOINT_NOT_FOUND":
            raise UnavailableError(
                f"what answers at {shown(uri)} is no MLflow server: {message}",
                hint="Set MLFLOW_TRACKING_URI to where one runs.",
            ) from error
        if code in _REFUSED:
            raise ConflictError(
                f"the registry refuses: {message}",
                hint="Check the permissions of the account in MLFLOW_TRACKING_USERNAME or _TOKEN.",
            ) from error
        raise UnavailableError(
            f"the registry at {shown(uri)} failed: {message}",
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
        raise UsageError(
            f"MLFLOW_TRACKING_URI is not a URI: {error}",
            hint="Write it as http://host:port, sqlite:///file.db or another that MLflow knows.",
        ) from error
    if parts.scheme in {"http", "https"}:
        import requests

        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
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
        f"no MLflow registry answers at {shown(uri)}: {_without_secrets(reason[:300], uri)}",
        hint="Start it, or set MLFLOW_TRACKING_URI to where it runs.",
    )


def shown(uri: str) -> str:
    """Return a URI without what may be a secret: the account and the query."""
    account, separator, _ = urlsplit(uri).netloc.rpartition("@")
    hidden = uri.replace(f"{account}{separator}", "***@", 1) if separator else uri
    return hidden.partition("?")[0]


def _without_secrets(text: str, uri: str) -> str:
    parts = urlsplit(uri)
    # An account without a password is a token.
    secrets = {parts.password or parts.username or ""}
    secrets |= {value for key, value in parse_qsl(parts.query) if _SECRET.search(key)}
    for secret in {*secrets, *map(unquote, secrets), *map(quote, secrets)} - {""}:
        text = text.replace(secret, "***")
    return text


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
