"""Download an alias's proven bundle from the registry into a model repository.

    resolve → fetch → publish → activate

For servers with a repository of their own. No alias is moved, nothing is converted, and nothing is
written to the registry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.commands.export.result import ExportResult
from exporter.commands.result import run_job
from exporter.names import (
    DEFAULT_REPOSITORY,
    DEFAULT_TRACKING_URI,
    alias_name,
    model_name,
)
from exporter.progress import Listener, Silent, Steps
from exporter.proven_bundle import ProvenBundle, bundle_for_alias, fetch_proven, find_published
from exporter.registry import Registry
from exporter.repository import open_repository
from exporter.rollout.rollout import Rollout, versions_to_keep

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.proven_bundle import BundleRef

__all__ = ["PullRequest", "pull"]


@dataclass(frozen=True, slots=True)
class PullRequest:
    """The request of `pull`.

    Attributes:
        model: The registered model.
        alias: The alias whose bundle to download.
        repository: The model repository.
        tracking_uri: The MLflow registry.

    Raises:
        UsageError: The model's name is invalid.
        NotFoundError: The alias does not exist.
    """

    model: str
    alias: str
    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI

    def __post_init__(self) -> None:
        model_name(self.model)
        alias_name(self.alias)


def pull(request: PullRequest, listener: Listener | None = None) -> ExportResult:
    """Publish and activate an alias's bundle in a repository.

    Versions that the repository serves for other aliases stay served.

    Args:
        request: The request.
        listener: Receives progress events.

    Returns:
        The result, with ``status`` ``pulled`` or ``unchanged``; on failure its ``status`` is
        ``failed``, and it holds the error.
    """
    return run_job(_Pull(request, Steps(listener or Silent())))


class _Pull:
    def __init__(self, request: PullRequest, steps: Steps) -> None:
        self.request = request
        self.steps = steps
        self.repository = open_repository(request.repository)
        self.result = ExportResult(
            model=request.model, alias=request.alias, repository=request.repository
        )

    def run(self) -> None:
        model, repository = self.request.model, self.repository
        with self.steps("resolve"):
            registry = Registry.connect(self.request.tracking_uri)
            version, recorded = bundle_for_alias(registry, model, self.request.alias)
            self.result = replace(self.result, version=version)
            published = find_published(repository, model, version, recorded)
        if published is not None and repository.is_serving(published.bundle):
            repository.clean_up(model)
            self.result = self.result.with_bundle("unchanged", published)
            return
        with repository.workspace(model) as work:
            proven = published or self._fetch(registry, version, recorded, work / "fetched")
            other_versions = versions_to_keep(
                repository, model, self.request.alias, registry.aliases(model)
            )
            with Rollout(repository, (), work).apply(proven.bundle, other_versions, self.steps):
                repository.ensure_locked(model)
            self.result = self.result.with_bundle("pulled", proven)

    def _fetch(
        self, registry: Registry, version: int, recorded: BundleRef, folder: Path
    ) -> ProvenBundle:
        with self.steps("fetch"):
            return fetch_proven(registry, self.request.model, version, recorded, folder)
