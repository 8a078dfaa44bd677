"""Finds versions and moves aliases in an MLflow Model Registry."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from exporter.errors import ConflictError, NotFoundError, StlabError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Registry", "Selection", "is_gone", "translated"]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 8.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED"})


@dataclass(frozen=True, slots=True)
class Selection:
    """The version that an alias is to name.

    Attributes:
        model: The registered model.
        version: The version chosen.
        previous: The version that the alias names now, or None.
        aliases: Every alias of the model with its version.
        tags: The version's tags.
    """

    model: str
    version: int
    previous: int | None
    aliases: Mapping[str, int]
    tags: Mapping[str, str]


class Registry:
    """One MLflow Model Registry.

    Args:
        uri: The tracking URI.
        client: An `mlflow.MlflowClient` for it.
    """

    def __init__(self, uri: str, client: Any) -> None:
        self.uri = uri
        self.client = client

    @classmethod
    def connect(cls, uri: str) -> Registry:
        """Check within seconds that the registry answers, and connect to it.

        Raises:
            UnavailableError: Nothing answers at the URI.
        """
        _check_reachable(uri)
        # MLflow's default, seven attempts with growing pauses, takes minutes on a dead server.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        for name in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
            from mlflow import MlflowClient

        with translated(uri):
            mlflow.set_tracking_uri(uri)
            return cls(uri, MlflowClient(tracking_uri=uri))

    def select(self, model: str, alias: str, version: int | None) -> Selection:
        """Choose the version that an alias is to name.

        ``dev`` takes the newest version, ``staging`` what ``dev`` names (else the newest), ``prod``
        what ``staging`` names and nothing else.

        Raises:
            NotFoundError: There is no such model or version; the known ones are named.
            ConflictError: ``prod`` is asked for a version that ``staging`` does not name.
            UnavailableError: The registry went away.
        """
        with translated(self.uri):
            aliases = self._aliases(model)
            found = self.client.search_model_versions(f"name = '{model}'")
        versions = {int(entry.version): entry for entry in found}
        if not versions:
            raise NotFoundError(
                f"the registered model '{model}' has no versions",
                hint="Log one with registered_model_name=..., then export again.",
            )
        chosen = version or _default_version(alias, aliases, versions)
        if chosen not in versions:
            raise NotFoundError(
                f"'{model}' has no version {chosen}; it has {_join(versions)}",
                hint="Choose one of them with --version.",
            )
        if alias == "prod" and aliases.get("staging") != chosen:
            raise ConflictError(
                f"'prod' takes what 'staging' names "
                f"({aliases.get('staging', 'nothing')}), not version {chosen}",
                hint=f"Prove it first: stlab-export {model} --alias staging --version {chosen}",
            )
        return Selection(
            model, chosen, aliases.get(alias), aliases, dict(versions[chosen].tags or {})
        )

    def pull(self, model: str, version: int, folder: Path) -> Path:
        """Copy a version's artifact into a folder of our own and return where it lies.

        Raises:
            NotFoundError: The registry has the version, its artifact is gone.
            UnavailableError: The registry or the artifact store went away.
        """
        from mlflow.artifacts import download_artifacts

        with translated(self.uri), _quiet_progress():
            uri = self.client.get_model_version_download_uri(model, str(version))
            try:
                return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))
            except Exception as error:
                # MLflow puts what several files failed of into one text.
                if any(os.strerror(code) in str(error) for code in _FULL):
                    raise UnavailableError(
                        f"there is no room beside the repository for '{model}' version {version}",
                        hint="Free the disk, then run the same command again.",
                    ) from error
                if is_gone(error):
                    raise _artifact_gone(model, version, error) from error
                raise

    def tag(self, model: str, version: int, tags: Mapping[str, object]) -> None:
        """Set tags of a version."""
        with translated(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(model, str(version), key, str(value))

    def promote(self, selection: Selection, alias: str, *, by: str) -> None:
        """Move an alias to the selected version, as the last step, and read it back.

        Raises:
            ConflictError: Somebody moved the alias meanwhile; nothing was changed.
            UnavailableError: The registry went away.
        """
        model, version = selection.model, selection.version
        with translated(self.uri):
            current = self._aliases(model).get(alias)
            if current != selection.previous:
                raise ConflictError(
                    f"'{alias}' was moved from {_version(selection.previous)} to "
                    f"{_version(current)} by somebody else while version {version} was proven",
                    hint="Look at what they promoted, then export again.",
                )
            record = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "from": selection.previous,
                "by": by,
            }
            try:
                self.client.set_registered_model_alias(model, alias, str(version))
                self.client.set_model_version_tag(
                    model, str(version), f"stlab.promoted.{alias}", json.dumps(record)
                )
            except BaseException:
                with contextlib.suppress(Exception):
                    self._put_back(selection, alias)
                raise
            if self._aliases(model).get(alias) != version:
                raise ConflictError(
                    f"'{alias}' does not name version {version} after it was moved there",
                    hint="Another promotion is under way; look at the aliases and export again.",
                )

    def _put_back(self, selection: Selection, alias: str) -> None:
        """Let an alias name what it named, unless somebody else moved it on."""
        model = selection.model
        if self._aliases(model).get(alias) != selection.version:
            return
        if selection.previous is None:
            self.client.delete_registered_model_alias(model, alias)
        else:
            self.client.set_registered_model_alias(model, alias, str(selection.previous))

    def _aliases(self, model: str) -> dict[str, int]:
        try:
            registered = self.client.get_registered_model(model)
        except Exception as error:
            if getattr(error, "error_code", "") not in _NOT_FOUND:
                raise
            raise NotFoundError(
                f"there is no registered model '{model}' in {_shown(self.uri)}; "
                f"there are: {_join(self._models())}",
                hint="Check the name and MLFLOW_TRACKING_URI.",
            ) from error
        return {alias: int(version) for alias, version in registered.aliases.items()}

    def _models(self) -> list[str]:
        return sorted(model.name for model in self.client.search_registered_models(max_results=100))


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
        message = _without_password(" ".join(str(error).split())[:500], uri)
        if code in _NOT_FOUND:
            raise NotFoundError(
                f"the registry says: {message}", hint="Check the name and MLFLOW_TRACKING_URI."
            ) from error
        if code == "ENDPOINT_NOT_FOUND":
            raise UnavailableError(
                f"what answers at {_shown(uri)} is no MLflow server: {message}",
                hint="Set MLFLOW_TRACKING_URI to where one runs.",
            ) from error
        if code in _REFUSED:
            raise ConflictError(
                f"the registry refuses: {message}",
                hint="Check the permissions of the account in MLFLOW_TRACKING_USERNAME or _TOKEN.",
            ) from error
        raise UnavailableError(
            f"the registry at {_shown(uri)} failed: {message}",
            hint="Nothing was promoted; try again once it answers.",
        ) from error


def _default_version(alias: str, aliases: Mapping[str, int], versions: Mapping[int, Any]) -> int:
    if alias == "staging" and "dev" in aliases:
        return aliases["dev"]
    if alias == "prod":
        if "staging" not in aliases:
            raise ConflictError(
                "no version is in 'staging', and 'prod' takes nothing else",
                hint="Prove a version first: stlab-export --alias staging",
            )
        return aliases["staging"]
    return max(versions)


def _check_reachable(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        import requests

        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
        except requests.exceptions.SSLError:
            return  # it answers; MLflow has settings of its own for certificates
        except requests.exceptions.RequestException as error:
            raise _unreachable(uri, str(error)) from error
    elif parts.scheme.startswith("sqlite"):
        path = Path(unquote(uri.partition(":///")[2]))
        if not path.is_file():
            raise _unreachable(uri, "there is no such file")
    elif parts.hostname and (port := parts.port or _PORTS.get(parts.scheme.partition("+")[0])):
        try:
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
        except OSError as error:
            raise _unreachable(uri, str(error)) from error


def _unreachable(uri: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"no MLflow registry answers at {_shown(uri)}: {_without_password(reason[:300], uri)}",
        hint="Start it, or set MLFLOW_TRACKING_URI to where it runs.",
    )


def is_gone(error: Exception) -> bool:
    """Whether an artifact is not there, as each of MLflow's stores says it."""
    # Not any OSError: those of requests are, and say that the server does not answer.
    return (
        isinstance(error, FileNotFoundError)
        or "No such " in str(error)
        or getattr(error, "error_code", "") in _NOT_FOUND
    )


def _artifact_gone(model: str, version: int, error: Exception) -> NotFoundError:
    return NotFoundError(
        f"the artifact of '{model}' version {version} cannot be found: {error}",
        hint="The registry names a version whose files are gone; register it again.",
    )


def _shown(uri: str) -> str:
    """The URI without what may be a password."""
    parts = urlsplit(uri)
    if not parts.username and not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"***@{host}").geturl()


def _without_password(text: str, uri: str) -> str:
    parts = urlsplit(uri)
    for secret in {parts.password or "", unquote(parts.password or "")} - {""}:
        text = text.replace(secret, "***")
    return text


def _version(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"


def _join(items: Any) -> str:
    return ", ".join(str(item) for item in sorted(items)) or "none"


@contextlib.contextmanager
def _quiet_progress() -> Iterator[None]:
    previous = os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"]
        else:
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = previous
