"""Check that a registry answers, and translate the errors of its libraries, without secrets."""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from requests.exceptions import SSLError

from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
    causes,
)
from exporter.registry.bounds import exchange
from exporter.registry.transport import probe
from exporter.text.redaction import redact

__all__ = ["NOT_FOUND", "check_reachable", "translate_errors"]

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 8.0
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
        for cause in causes(error):
            if isinstance(cause, StlabError):  # MLflow has wrapped it in an error of its own
                raise cause from None
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
    try:
        _connect(uri, parts, port)
    except SSLError:
        return  # the server answers; MLflow has its own settings for certificates
    except OSError as error:  # the errors of requests as well
        raise UnavailableError(
            f"no MLflow registry answers at {redact(uri)}: {redact(str(error))[:300]}",
            hint="Start it, or set MLFLOW_TRACKING_URI to its address.",
        ) from error


def _connect(uri: str, parts: SplitResult, port: int | None) -> None:
    if parts.scheme in {"http", "https"}:
        probe(uri, "/health", _ANSWER_SECONDS)
    elif parts.scheme.startswith("sqlite"):
        path = Path(unquote(uri.partition(":///")[2].partition("?")[0]))
        # MLflow would create a registry in an empty file.
        if not path.is_file() or not path.stat().st_size:
            raise FileNotFoundError("no such file")
    elif parts.scheme in {"", "file"}:
        if not Path(unquote(parts.path)).is_dir():
            raise FileNotFoundError("no such file")
    elif parts.hostname and port:
        socket.create_connection((parts.hostname, port), _CONNECT_SECONDS).close()
