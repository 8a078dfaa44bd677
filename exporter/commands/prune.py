"""Deletes versions of a repository that nothing names, and nothing goes back to.

What is deleted is out of the live config already, so no server has to be told; with ``unaliased``
those that are given are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from exporter.commands.result import JobResult, run_job
from exporter.errors import ConflictError, UsageError, ValidationFailedError
from exporter.names import ALIASES, DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI, model_name
from exporter.progress import Listener, Silent, Steps
from exporter.registry import Registry, open_records, promotion
from exporter.repository import open_repository
from exporter.rollout.live_servers import check_servers, reload
from exporter.triton.connection import connect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.repository import Repository

__all__ = ["PruneRequest", "PruneResult", "prune"]


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What to delete, as asked for.

    Attributes:
        model: The registered model.
        keep: How many of the newest versions stay in any case.
        unaliased: Whether versions that are served without an alias are taken out of service.
        repository: The model repository.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of live servers, which are told where the config changes.
        dry_run: Whether to stop after planning.
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
            raise UsageError("--keep is at least 0", hint="Aliased versions stay in any case.")


@dataclass(frozen=True, slots=True)
class PruneResult(JobResult):
    """The object that ``--json`` prints.

    Attributes:
        status: ``pruned``, ``unchanged``, ``planned`` or ``failed``.
        model: The registered model.
        repository: The model repository.
        removed: The versions that were deleted, or would be.
        kept: Why each other version stays.
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
    """Delete what nobody needs of a model's published versions.

    Args:
        request: What is asked for.
        listener: Told about every step.

    Returns:
        The result; on failure with ``status`` ``failed`` and the error in it.
    """
    return run_job(_Pruning(request, Steps(listener or Silent())))


class _Pruning:
    def __init__(self, request: PruneRequest, steps: Steps) -> None:
        self.request = request
        self.steps = steps
        self.result = PruneResult(model=request.model, repository=request.repository)

    def run(self) -> None:
        request = self.request
        with self.steps("resolve"):
            registry = Registry.connect(request.tracking_uri)
            registry.get_model(request.model)
            check_servers(request.triton_urls)
            repository = open_repository(request.repository)
        if request.dry_run:
            planned = self._plan(registry, repository)
            self.result = replace(self.result, status="planned", removed=planned)
            return
        with repository.workspace(request.model) as work:
            if request.unaliased:
                with self.steps("activate"):
                    self._drop_unaliased(registry, repository, work)
            # Under the lock: nobody publishes or activates meanwhile.
            planned = self._plan(registry, repository)
            with self.steps("remove"):
                for version in planned:
                    repository.ensure_locked(request.model)
                    self._remove(repository, version, work)
        self.result = replace(self.result, status="pruned" if self.result.removed else "unchanged")

    def _remove(self, repository: Repository, version: int, work: Path) -> None:
        result = self.result
        try:
            repository.remove(result.model, version, work)
        except ValidationFailedError as error:  # nobody can tell what of it is a server's
            self.result = replace(result, kept={**result.kept, version: error.message})
        else:
            self.result = replace(result, removed=(*result.removed, version))

    def _plan(self, registry: Registry, repository: Repository) -> tuple[int, ...]:
        model = self.request.model
        published = repository.versions(model)
        served = repository.served_versions(model)
        if published and not served:
            raise ConflictError(
                f"the live config of '{model}' names no version, so nobody can tell which of "
                f"{', '.join(map(str, published))} a server takes",
                hint=f"See what mends it: stlab status {model}",
            )
        why = dict.fromkeys(self._newest(published), "one of the newest")
        why |= dict.fromkeys(served, "served")
        aliases, versions = registry.get_model(model)
        for alias in ALIASES:
            records = open_records(versions, alias)
            for version in records:
                # Where the alias names another, a promotion was interrupted and may be finished.
                why.setdefault(version, f"its record says that '{alias}' names it")
            current = promotion(versions.get(aliases.get(alias, 0), {}), alias)
            for record in (*records.values(), current):
                if record is not None and record.previous is not None:
                    why.setdefault(record.previous, f"'{alias}' would roll back to it")
        for version in set(aliases.values()):
            names = sorted(alias for alias, named in aliases.items() if named == version)
            why[version] = ", ".join(names)
        kept = {version: why[version] for version in published if version in why}
        self.result = replace(self.result, kept=kept)
        return tuple(version for version in published if version not in why)

    def _newest(self, published: tuple[int, ...]) -> tuple[int, ...]:
        return published[-self.request.keep :] if self.request.keep else ()

    def _drop_unaliased(self, registry: Registry, repository: Repository, work: Path) -> None:
        """Take versions out of the live config that no alias names; one at least must stay."""
        model = self.request.model
        served = set(repository.served_versions(model))
        named = served & set(registry.aliases(model).values())
        unaware = [url for url in self.request.triton_urls if self._ready(url) - named]
        if named == served and not unaware:
            return
        bundle = repository.bundle(model, max(named)) if named else None
        if bundle is None:
            raise ConflictError(
                f"no version of '{model}' that is served here has an alias, and a model without "
                "versions cannot be served",
                hint="Export one to an alias first; stlab status says what is drifting.",
            )
        repository.activate(bundle, named, work)
        for url in unaware:
            reload(url, bundle)

    def _ready(self, url: str) -> set[int]:
        """Return the versions that a server has ready, whatever the config says."""
        with connect(url) as client:
            index = client.repository.index(ready=True)
        model = self.request.model
        return {int(e.version) for e in index if e.name == model and e.version.isdecimal()}
