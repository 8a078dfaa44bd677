"""Delete published versions that no alias, server or rollback needs.

Deleted versions are not in the live config, so servers need no reload; ``unaliased`` takes versions
out of the live config first, and reloads the given servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter.commands.result import Job, JobResult
from exporter.errors import ConflictError, UsageError, ValidationFailedError
from exporter.names import ALIASES, DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI, model_name
from exporter.progress import Listener
from exporter.registry import Registry, open_records, promotion
from exporter.repository import open_repository
from exporter.rollout.live_servers import check_servers, reload
from exporter.triton.connection import connect

__all__ = ["PruneRequest", "PruneResult", "prune"]


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """The request of `prune`.

    Attributes:
        model: The registered model.
        keep: Number of newest versions that are always kept.
        unaliased: Whether to stop serving versions without an alias.
        repository: The model repository.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of live servers, which are reloaded if the config changes.
        dry_run: Whether to stop after planning.

    Raises:
        UsageError: A value is invalid.
    """

    model: str
    keep: int = 2
    unaliased: bool = False
    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI
    triton_urls: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        model_name(self.model)
        if self.keep < 0:
            raise UsageError(
                "--keep must be at least 0", hint="Versions with an alias are always kept."
            )


@dataclass(frozen=True, slots=True)
class PruneResult(JobResult):
    """The result of `prune`.

    Attributes:
        status: ``pruned``, ``unchanged``, ``planned`` or ``failed``.
        model: The registered model.
        repository: The model repository.
        removed: The versions that were deleted, or would be.
        kept: The reason for every version that is kept.
    """

    model: str = ""
    repository: str = ""
    removed: tuple[int, ...] = ()
    kept: Mapping[int, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """See `CommandResult.content`."""
        return {
            "status": self.status,
            "model": self.model,
            "repository": self.repository,
            "removed": list(self.removed),
            "kept": [{"version": version, "why": why} for version, why in self.kept.items()],
            "seconds": dict(self.seconds),
        }


def prune(request: PruneRequest, listener: Listener | None = None) -> PruneResult:
    """Delete the published versions of a model that no alias, server or rollback needs.

    The listener receives progress events. On failure the result's ``status`` is ``failed``, and it
    holds the error.
    """
    result = PruneResult(model=request.model, repository=request.repository)
    return _Pruning(request, result, listener).finish()


class _Pruning(Job[PruneRequest, PruneResult]):
    def run(self) -> None:
        request = self.request
        with self.steps("resolve"):
            self.registry = Registry.connect(request.tracking_uri)
            self.registry.get_model(request.model)
            check_servers(request.triton_urls)
            self.repository = repository = open_repository(request.repository)
        if request.dry_run:
            self.result = replace(self.result, status="planned", removed=self._plan())
            return
        with repository.workspace(request.model) as work:
            if request.unaliased:
                with self.steps("activate"):
                    self._drop_unaliased(work)
            # Under the lock, so nothing is published or activated meanwhile.
            planned = self._plan()
            with self.steps("remove"):
                for version in planned:
                    repository.ensure_locked(request.model)
                    self._remove(version, work)
        self.result = replace(self.result, status="pruned" if self.result.removed else "unchanged")

    def _remove(self, version: int, work: Path) -> None:
        result = self.result
        try:
            self.repository.remove(result.model, version, work)
        except ValidationFailedError as error:  # it may be served
            self.result = replace(result, kept={**result.kept, version: error.message})
        else:
            self.result = replace(result, removed=(*result.removed, version))

    def _plan(self) -> tuple[int, ...]:
        """Return the versions to remove, and record why the others are kept."""
        model = self.request.model
        published = self.repository.versions(model)
        served = self.repository.served_versions(model)
        if published and not served:
            raise ConflictError(
                f"the live config of '{model}' lists no version, so which of "
                f"{', '.join(map(str, published))} a server loads is unknown",
                hint=f"Find the fix with: stlab status {model}",
            )
        newest = published[-self.request.keep :] if self.request.keep else ()
        reasons = dict.fromkeys(newest, "one of the newest") | dict.fromkeys(served, "served")
        aliases, versions = self.registry.get_model(model)
        for alias in ALIASES:
            records = open_records(versions, alias)
            for version in records:
                # If the alias points elsewhere, an interrupted promotion may still be finished.
                reasons.setdefault(version, f"it has an open record of '{alias}'")
            current = promotion(versions.get(aliases.get(alias, 0), {}), alias)
            for record in (*records.values(), current):
                if record is not None and record.previous is not None:
                    reasons.setdefault(record.previous, f"'{alias}' would roll back to it")
        for version in set(aliases.values()):
            names = sorted(alias for alias, target in aliases.items() if target == version)
            reasons[version] = ", ".join(names)
        kept = {version: reasons[version] for version in published if version in reasons}
        self.result = replace(self.result, kept=kept)
        return tuple(version for version in published if version not in reasons)

    def _drop_unaliased(self, work: Path) -> None:
        """Remove versions without an alias from the live config; at least one must stay."""
        model = self.request.model
        repository = self.repository
        served = set(repository.served_versions(model))
        aliased = served & set(self.registry.aliases(model).values())
        stale = [url for url in self.request.triton_urls if self._ready(url) - aliased]
        if aliased == served and not stale:
            return
        bundle = repository.bundle(model, max(aliased)) if aliased else None
        if bundle is None:
            raise ConflictError(
                f"no served version of '{model}' has an alias, and a model without versions cannot "
                "be served",
                hint=f"Export one to an alias first; find the fix with: stlab status {model}",
            )
        repository.activate(bundle, aliased, work)
        for url in stale:
            reload(url, bundle)

    def _ready(self, url: str) -> set[int]:
        """Return the versions that a server has ready."""
        with connect(url) as client:
            index = client.repository.index(ready=True)
        model = self.request.model
        return {int(e.version) for e in index if e.name == model and e.version.isdecimal()}
