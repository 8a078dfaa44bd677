"""Roll an alias back to an earlier version, with the bundle that was promoted then.

    resolve → fetch → prove → publish → activate → verify → promote

Nothing is converted. As in every promotion, ``archived`` takes the version that ``prod`` leaves.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.commands.export.result import ExportResult
from exporter.commands.promotion import AliasJob, check_movable
from exporter.commands.request import AliasRequest
from exporter.errors import ConflictError
from exporter.names import ARCHIVED
from exporter.progress import Listener
from exporter.proven_bundle import BundleRef, fetch_proven, find_published, recorded_bundle
from exporter.proving.prove import prove_again
from exporter.proving.proving_server import open_server
from exporter.registry import Registry, Selection, clean_up, promotion
from exporter.rollout.live_servers import check_servers
from exporter.rollout.rollout import Rollout, is_rolled_out
from exporter.triton.releases import release

__all__ = ["RollbackRequest", "rollback"]


@dataclass(frozen=True, slots=True)
class RollbackRequest(AliasRequest):
    """The request of `rollback`.

    Attributes:
        to: The version to roll back to; None for the previous one.
        reason: The reason, for the record.
        triton_urls: gRPC addresses of live servers to activate on.
        expect_current: The version that the alias must point to now.
        allow_manual: Whether ``prod`` may be moved outside CI.
    """

    to: int | None = None
    reason: str = ""
    triton_urls: tuple[str, ...] = ()
    expect_current: int | None = None
    allow_manual: bool = False


def rollback(request: RollbackRequest, listener: Listener | None = None) -> ExportResult:
    """Serve and verify an earlier version of an alias, then move the alias back to it.

    The listener receives progress events. On failure the result's ``status`` is ``failed``, and it
    holds the error.
    """
    return _Rollback(request, listener).finish()


class _Rollback(AliasJob[RollbackRequest]):
    def run(self) -> None:
        request = self.request
        with self.steps("resolve"):
            registry = Registry.connect(request.tracking_uri)
            selection, recorded = self._select(registry)
            published = find_published(
                self.repository, selection.model, selection.version, recorded
            )
            up_to_date = published is not None and is_rolled_out(
                self.repository, selection, request.alias, published.bundle, request.triton_urls
            )
        if published is not None and up_to_date:
            clean_up(registry, selection.model)
            self.repository.clean_up(selection.model)
            self.result = self.result.with_bundle("unchanged", published)
            return
        with self.repository.workspace(request.model) as work:
            clean_up(registry, selection.model)
            proven = published
            if proven is None:
                with self.steps("fetch"):
                    proven = fetch_proven(
                        registry, request.model, selection.version, recorded, work / "fetched"
                    )
            if not request.triton_urls:
                # Given live servers, the samples are replayed there instead.
                bundle = proven.bundle
                if published:
                    bundle = self.repository.fetch(bundle, work / "published")
                folder = Path(tempfile.mkdtemp(prefix="proving-", dir=work))
                target = release(bundle.release)
                with open_server("", folder, target, self.steps.say) as server, self.steps("prove"):
                    prove_again(server, bundle)
            rollout = Rollout(self.repository, request.triton_urls, work)
            self.promote(rollout, registry, selection, proven, reason=request.reason)
            self.result = self.result.with_bundle("rolled_back", proven)

    def _select(self, registry: Registry) -> tuple[Selection, BundleRef]:
        """Select the version to roll back to, and the bundle that was promoted then."""
        request, alias = self.request, self.request.alias
        aliases, versions = registry.get_model(request.model)
        current = aliases.get(alias)
        self.result = replace(self.result, previous=current)
        check_movable(alias, current, request.expect_current, allow_manual=request.allow_manual)
        if current is None:
            raise ConflictError(
                f"'{alias}' points to no version, so there is nothing to roll back",
                hint=f"Export one: stlab-export {request.model} --alias {alias}",
            )
        target = request.to
        if target is None and alias == "prod" and aliases.get(ARCHIVED) != current:
            target = aliases.get(ARCHIVED)
        if target is None:
            # For prod: an interrupted promotion has moved only 'archived'.
            record = promotion(versions.get(current, {}), alias)
            target = None if record is None else record.previous
        if target is None:
            raise ConflictError(
                f"the previous version of '{alias}', before version {current}, is not recorded",
                hint="Choose one with --to; stlab status shows the versions.",
            )
        recorded = recorded_bundle(versions.get(target, {}), alias)
        if recorded is None:
            known = [v for v, tags in versions.items() if recorded_bundle(tags, alias)]
            raise ConflictError(
                f"version {target} of '{request.model}' was never promoted to '{alias}' with "
                f"passing evidence; promoted were: {', '.join(map(str, sorted(known))) or 'none'}",
                hint=f"Choose one of them with --to, or export: stlab-export {request.model} "
                f"--alias {alias}",
            )
        selection = Selection(request.model, target, current, aliases, versions)
        self.result = replace(self.result, version=target)
        check_servers(request.triton_urls)
        return selection, recorded
