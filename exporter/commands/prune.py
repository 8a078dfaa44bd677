"""Deletes versions of a repository that nothing names, and nothing goes back to.

What is deleted is out of the live config already, so no server has to be told; with ``nameless``
those that are given are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from exporter.commands.export.result import interrupted
from exporter.errors import ConflictError, StlabError, UsageError, ValidationFailedError
from exporter.names import ALIASES, model_name
from exporter.progress import Listener, Silent, Steps
from exporter.registry import Registry, claims, promotion
from exporter.repository import open_repository
from exporter.rollout.live_servers import check_servers, reload
from exporter.triton.connection import connect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.repository import Repository

__all__ = ["PruneRequest", "PruneResult", "prune"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What to delete, as asked for.

    Attributes:
        model: The registered model.
        keep: How many of the newest versions stay in any case.
        nameless: Whether versions that are served without an alias are taken out of service.
        repository: The model repository.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of live servers, which are told where the config changes.
        dry_run: Whether to stop after planning.
    """

    model: str
    keep: int = 2
    nameless: bool = False
    repository: str = "model_repository"
    tracking_uri: str = "sqlite:///mlflow.db"
    triton_urls: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        model_name(self.model)
        if self.keep < 0:
            raise UsageError("--keep is at least 0", hint="Aliased versions stay in any case.")


@dataclass(frozen=True, slots=True)
class PruneResult:
    """The object that ``--json`` prints.

    Attributes:
        status: ``pruned``, ``unchanged``, ``planned`` or ``failed``.
        model: The registered model.
        repository: The model repository.
        removed: The versions that were deleted, or would be.
        kept: Why each other version stays.
        seconds: By step, with ``total``.
        error: Kind, message and hint.
        exit_code: The process's.
    """

    status: str
    model: str
    repository: str = ""
    removed: tuple[int, ...] = ()
    kept: Mapping[int, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    exit_code: int = 0

    def failed(self, error: StlabError) -> PruneResult:
        """Return the result with an error in it."""
        return replace(self, status="failed", error=error.as_dict(), exit_code=error.exit_code)

    def as_dict(self) -> dict[str, Any]:
        """Return the object, with the same keys in every case."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "model": self.model,
            "repository": self.repository,
            "removed": list(self.removed),
            "kept": [{"version": version, "why": why} for version, why in self.kept.items()],
            "seconds": dict(self.seconds),
            "error": self.error,
        }


def prune(request: PruneRequest, listener: Listener | None = None) -> PruneResult:
    """Delete what nobody needs of a model's published versions.

    Args:
        request: What is asked for.
        listener: Told about every step.

    Returns:
        The result; on failure with ``status`` ``failed`` and the error in it.
    """
    steps = Steps(listener or Silent())
    job = _Pruning(request, steps)
    try:
        job.run()
    except StlabError as error:
        job.result = job.result.failed(error)
    except KeyboardInterrupt:
        job.result = job.result.failed(interrupted())
    return replace(job.result, seconds=steps.seconds)


class _Pruning:
    def __init__(self, request: PruneRequest, steps: Steps) -> None:
        self.request = request
        self.steps = steps
        self.result = PruneResult("failed", request.model, request.repository)

    def run(self) -> None:
        request = self.request
        with self.steps("resolve"):
            registry = Registry.connect(request.tracking_uri)
            registry.look(request.model)
            check_servers(request.triton_urls)
            repository = open_repository(request.repository)
        if request.dry_run:
            planned = self._plan(registry, repository)
            self.result = replace(self.result, status="planned", removed=planned)
            return
        with repository.workspace(request.model) as work:
            if request.nameless:
                with self.steps("activate"):
                    self._drop_nameless(registry, repository, work)
            # Under the lock: nobody publishes or activates meanwhile.
            planned = self._plan(registry, repository)
            with self.steps("remove"):
                for version in planned:
                    repository.check_held(request.model)
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
        served = repository.served(model)
        if published and not served:
            raise ConflictError(
                f"the live config of '{model}' names no version, so nobody can tell which of "
                f"{', '.join(map(str, published))} a server takes",
                hint=f"See what mends it: stlab status {model}",
            )
        why = dict.fromkeys(self._newest(published), "one of the newest")
        why |= dict.fromkeys(served, "served")
        aliases, versions = registry.look(model)
        for alias in ALIASES:
            records = claims(versions, alias)
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

    def _drop_nameless(self, registry: Registry, repository: Repository, work: Path) -> None:
        """Take versions out of the live config that no alias names; one at least must stay."""
        model = self.request.model
        served = set(repository.served(model))
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
