"""Read models, versions and aliases of an MLflow Model Registry, and tag versions."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import ConflictError, NotFoundError
from exporter.registry.artifacts import download
from exporter.registry.bounds import every_page
from exporter.registry.errors import NOT_FOUND, check_reachable, translate_errors
from exporter.registry.transport import install
from exporter.text.redaction import learn, redact

__all__ = ["Registry", "Selection"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The version of a model that was selected for an alias.

    Attributes:
        previous: The version that the alias points to now, or None.
        aliases: Every alias of the model with its version.
        versions: The tags of every version of the model.
    """

    model: str
    version: int
    previous: int | None
    aliases: Mapping[str, int]
    versions: Mapping[int, Mapping[str, str]]

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of the selected version."""
        return self.versions[self.version]


class Registry:
    """One MLflow Model Registry, with an `mlflow.MlflowClient` for its tracking URI.

    Every method raises `UnavailableError` where the registry does not answer.
    """

    def __init__(self, uri: str, client: Any) -> None:
        self.uri = uri
        self.client = client

    @classmethod
    def connect(cls, uri: str) -> Registry:
        """Check within seconds that the registry answers, and connect to it.

        Raises:
            UsageError: The URI is malformed.
        """
        learn(uri)
        check_reachable(uri)
        # MLflow's default, seven attempts with growing pauses, takes minutes on a dead server.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        # Standard output carries the command's result and nothing else.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        for name in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
            from mlflow import MlflowClient

            install()
        with translate_errors(uri):
            mlflow.set_tracking_uri(uri)
            return cls(uri, MlflowClient(tracking_uri=uri))

    def select(self, model: str, alias: str, version: int | None) -> Selection:
        """Select the version that an alias is to point to.

        By default ``dev`` takes the newest version, ``staging`` the version of ``dev`` (else the
        newest), and ``prod`` the version of ``staging``; ``prod`` accepts no other.

        Raises:
            NotFoundError: The model or version does not exist; the message lists those that do.
            ConflictError: ``prod`` is to take a version that ``staging`` does not point to.
        """
        aliases, versions = self.get_model(model)
        chosen = version or _default_version(alias, aliases, versions)
        if chosen not in versions:
            raise NotFoundError(
                f"'{model}' has no version {chosen}; it has {_join(versions)}",
                hint="Choose one of them with --version.",
            )
        if alias == "prod" and aliases.get("staging") != chosen:
            raise ConflictError(
                f"'prod' takes the version of 'staging' "
                f"({aliases.get('staging', 'none')}), not version {chosen}",
                hint=f"Prove it first: stlab-export {model} --alias staging --version {chosen}",
            )
        return Selection(model, chosen, aliases.get(alias), aliases, versions)

    def get_model(self, model: str) -> tuple[Mapping[str, int], Mapping[int, Mapping[str, str]]]:
        """Return the version of every alias of a model, and the tags of every version.

        Raises:
            NotFoundError: The model does not exist, or has no versions.
        """
        aliases = self.aliases(model)
        with translate_errors(self.uri):
            found = {
                int(entry.version): dict(entry.tags or {})
                for entry in every_page(self.client.search_model_versions, f"name = '{model}'")
            }
        if not found:
            raise NotFoundError(
                f"the registered model '{model}' has no versions",
                hint="Log one with registered_model_name=..., then export again.",
            )
        return aliases, found

    def models(self) -> list[str]:
        """Return the names of all registered models."""
        with translate_errors(self.uri):
            found = every_page(self.client.search_registered_models)
            return sorted(str(model.name) for model in found)

    def pull(self, model: str, version: int, folder: Path) -> Path:
        """Download a version's artifact into a folder, and return the folder.

        Raises:
            ConflictError: The address of the version's source is not followed.
            NotFoundError: The version exists, but its artifact is gone.
            UnavailableError: The registry, the artifact store or the disk fails.
        """
        return download(
            self,
            f"models:/{model}/{version}",
            folder,
            f"the artifact of '{model}' version {version}",
            "Register the version again: the registry has lost its files.",
        )

    def artifact_roots(self) -> set[str]:
        """Return the artifact locations of the registry's experiments."""
        from mlflow.entities import ViewType

        found = every_page(self.client.search_experiments, ViewType.ALL)
        return {str(experiment.artifact_location) for experiment in found}

    def tag(self, model: str, version: int, tags: Mapping[str, object]) -> None:
        """Set tags of a version; the values must be free of secrets."""
        with translate_errors(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(model, str(version), key, str(value))

    def aliases(self, model: str) -> dict[str, int]:
        """Return every alias of a model with the version that it points to.

        Raises:
            NotFoundError: The model does not exist.
        """
        with translate_errors(self.uri):
            try:
                registered = self.client.get_registered_model(model)
            except Exception as error:
                if getattr(error, "error_code", "") not in NOT_FOUND:
                    raise
                raise NotFoundError(
                    f"no registered model '{model}' in {redact(self.uri)}; "
                    f"registered models: {_join(self.models())}",
                    hint="Check the name and MLFLOW_TRACKING_URI.",
                ) from error
            return {alias: int(version) for alias, version in registered.aliases.items()}

    def version_by_alias(self, model: str, alias: str) -> tuple[int, Mapping[str, str]]:
        """Return the version that an alias points to, with its tags, by one request.

        Raises:
            NotFoundError: The model or alias does not exist.
        """
        with translate_errors(self.uri):
            try:
                found = self.client.get_model_version_by_alias(model, alias)
            except Exception as error:
                # MLflow has an error code of its own for a missing alias.
                if getattr(error, "error_code", "") in {*NOT_FOUND, "INVALID_PARAMETER_VALUE"}:
                    raise NotFoundError(
                        f"'{model}' has no alias '{alias}'",
                        hint=f"Promote one: stlab-export {model} --alias {alias}",
                    ) from error
                raise
            return int(found.version), dict(found.tags or {})


def _default_version(alias: str, aliases: Mapping[str, int], versions: Mapping[int, Any]) -> int:
    if alias == "staging" and "dev" in aliases:
        return aliases["dev"]
    if alias == "prod":
        if "staging" not in aliases:
            raise ConflictError(
                "'staging' points to no version, and 'prod' takes no other",
                hint="Prove a version first: stlab-export --alias staging",
            )
        return aliases["staging"]
    return max(versions)


def _join(items: Any) -> str:
    return ", ".join(str(item) for item in sorted(items)) or "none"
