"""Download an alias's proven bundle from the registry into a model repository.

    resolve → fetch → publish → activate

For servers with a repository of their own. No alias is moved, nothing is converted, and nothing is
written to the registry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter.commands.export.result import ExportResult
from exporter.commands.promotion import AliasJob
from exporter.commands.request import AliasRequest
from exporter.progress import Listener
from exporter.proven_bundle import bundle_for_alias, fetch_proven, find_published
from exporter.registry import Registry
from exporter.rollout.rollout import Rollout, versions_to_keep

__all__ = ["PullRequest", "pull"]


@dataclass(frozen=True, slots=True)
class PullRequest(AliasRequest):
    """The request of `pull`."""


def pull(request: PullRequest, listener: Listener | None = None) -> ExportResult:
    """Publish and activate an alias's bundle in a repository.

    Versions that the repository serves for other aliases stay served. The listener receives
    progress events. The result's ``status`` is ``pulled`` or ``unchanged``; on failure it is
    ``failed``, and the result holds the error.
    """
    return _Pull(request, listener).finish()


class _Pull(AliasJob[PullRequest]):
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
            proven = published
            if proven is None:
                with self.steps("fetch"):
                    proven = fetch_proven(registry, model, version, recorded, work / "fetched")
            other_versions = versions_to_keep(
                repository, model, self.request.alias, registry.aliases(model)
            )
            with Rollout(repository, (), work).apply(proven.bundle, other_versions, self.steps):
                repository.ensure_locked(model)
            self.result = self.result.with_bundle("pulled", proven)
