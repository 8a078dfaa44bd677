"""Finds versions and moves aliases in an MLflow Model Registry."""

from __future__ import annotations

import errno
import json
import logging
import os
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import ConflictError, NotFoundError, OutcomeUnknown, UnavailableError
from exporter.registry.adapter import (
    NOT_FOUND,
    check_reachable,
    is_gone,
    quiet_progress,
    shown,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Registry", "Selection", "promoted_bundle"]

_PROMOTED = "stlab.promoted."
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
        check_reachable(uri)
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

        with translated(self.uri), quiet_progress():
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

    def aliases(self, model: str) -> dict[str, int]:
        """Return every alias of a model with the version that it names now.

        Raises:
            NotFoundError: There is no such model.
            UnavailableError: The registry went away.
        """
        with translated(self.uri):
            return self._aliases(model)

    def promote(
        self, selection: Selection, alias: str, *, by: str, bundle: tuple[str, str]
    ) -> None:
        """Move an alias to the selected version, as the last step, and read it back.

        Args:
            selection: The version, and what the alias named when it was chosen.
            alias: The alias.
            by: Who or what moves it.
            bundle: The digest of the bundle that was published, and where it is kept.

        Raises:
            ConflictError: Somebody moved the alias meanwhile; nothing was changed.
            OutcomeUnknown: The registry went away before it said whether the alias was moved.
            UnavailableError: The registry went away before.
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
            try:
                self.client.set_registered_model_alias(model, alias, str(version))
                self.client.set_model_version_tag(
                    model,
                    str(version),
                    f"{_PROMOTED}{alias}",
                    json.dumps(_record(selection, alias, by, *bundle)),
                )
            except BaseException as error:
                try:
                    self._put_back(selection, alias)
                except Exception:  # noqa: BLE001 - whatever MLflow raises on a dead connection
                    raise self._unknown(selection, alias) from error
                raise
            try:
                current = self._aliases(model).get(alias)
            except Exception:  # noqa: BLE001 - whatever MLflow raises on a dead connection
                return  # both calls were answered: the alias was moved
            if current != version:
                raise ConflictError(
                    f"'{alias}' names {_version(current)} after it was moved to version {version}",
                    hint="Another promotion is under way; look at the aliases and export again.",
                )

    def _unknown(self, selection: Selection, alias: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the registry at {shown(self.uri)} went away while '{alias}' was moved; whether it "
            f"names version {selection.version} now is unknown, and that version stays served",
            hint="Run the same command again once the registry answers; it finishes the move.",
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
            if getattr(error, "error_code", "") not in NOT_FOUND:
                raise
            raise NotFoundError(
                f"there is no registered model '{model}' in {shown(self.uri)}; "
                f"there are: {_join(self._models())}",
                hint="Check the name and MLFLOW_TRACKING_URI.",
            ) from error
        return {alias: int(version) for alias, version in registered.aliases.items()}

    def _models(self) -> list[str]:
        return sorted(model.name for model in self.client.search_registered_models(max_results=100))


def promoted_bundle(tags: Mapping[str, str], alias: str) -> tuple[str, str] | None:
    """Return the digest of the bundle that an alias took of a version, and where it is kept."""
    record = _promotion(tags, alias)
    if "bundle" not in record or "uri" not in record:
        return None
    return str(record["bundle"]), str(record["uri"])


def _promotion(tags: Mapping[str, str], alias: str) -> dict[str, Any]:
    try:
        record = json.loads(tags[f"{_PROMOTED}{alias}"])
    except (KeyError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _record(
    selection: Selection, alias: str, by: str, sha256: str, uri: str
) -> Mapping[str, object]:
    """When and from where an alias came to name a version, by whom, and which bundle it took."""
    earlier = _promotion(selection.tags, alias)
    stays = selection.previous == selection.version
    if stays and earlier.get("bundle") == sha256:
        return {**earlier, "uri": uri}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "from": earlier.get("from") if stays else selection.previous,
        "by": by,
        "bundle": sha256,
        "uri": uri,
    }


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


def _artifact_gone(model: str, version: int, error: Exception) -> NotFoundError:
    return NotFoundError(
        f"the artifact of '{model}' version {version} cannot be found: {error}",
        hint="The registry names a version whose files are gone; register it again.",
    )


def _version(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"


def _join(items: Any) -> str:
    return ", ".join(str(item) for item in sorted(items)) or "none"
