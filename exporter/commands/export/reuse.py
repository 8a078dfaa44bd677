"""What an earlier export left of a version: its evidence, its bundle, what is served of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.commands.export.bundle_settings import settings_digest
from exporter.errors import ConflictError, ValidationFailedError
from exporter.parity.reference_set import cannot_be_batched
from exporter.proven_bundle import (
    BundleRef,
    ProvenBundle,
    fetch_proven,
    load_passed,
    recorded_bundle,
)
from exporter.registry.version_tags import BundleTags, has_passed
from exporter.rollout.rollout import is_rolled_out

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.commands.export.request import ExportRequest
    from exporter.registry import Registry, Selection
    from exporter.repository import Repository

__all__ = ["ReusableExport"]


@dataclass(frozen=True, slots=True)
class ReusableExport:
    """Looks for what one request can take over.

    Attributes:
        request: The request.
        settings: What decides a bundle's content; see
            `exporter.commands.export.bundle_settings`.
        repository: Where bundles are published.
    """

    request: ExportRequest
    settings: Mapping[str, Any]
    repository: Repository

    def find_bundle(self, selection: Selection) -> BundleRef | None:
        """Return the bundle that the version's tags name, if it is what is asked for.

        Raises:
            ConflictError: ``prod``, which takes nothing else, finds none.
        """
        tags = selection.tags
        if self.request.alias == "prod":
            # The very bundle that staging took: the version may have been exported again since.
            taken = recorded_bundle(tags, "staging")
            if taken is None:
                raise ConflictError(
                    f"version {selection.version} has no passed evidence",
                    hint=f"Prove it first: stlab-export {selection.model} --alias staging",
                )
            return taken
        newest = BundleTags.read(tags)
        if has_passed(tags) and newest.settings == settings_digest(self.settings):
            return BundleRef(newest.sha256, newest.uri)
        return None

    def find_up_to_date(
        self, selection: Selection, recorded: BundleRef | None
    ) -> ProvenBundle | None:
        """Return what is proven, published, served and promoted already, if all of it is.

        Raises:
            ValidationFailedError: Batching is required of a version that cannot be batched.
            UnavailableError: A server does not answer.
        """
        if recorded is None:
            return None
        try:
            bundle = self.repository.bundle(selection.model, selection.version)
            if bundle is None or bundle.sha256 != recorded.sha256:
                return None
            proven = self._asked_for(load_passed(bundle, recorded.uri))
        except ValidationFailedError as error:
            if error.kind == "batching":
                raise
            return None
        request = self.request
        settled = is_rolled_out(
            self.repository, selection, request.alias, bundle, request.triton_urls
        )
        return proven if settled else None

    def fetch(
        self, registry: Registry, selection: Selection, recorded: BundleRef, folder: Path
    ) -> ProvenBundle:
        """Download a recorded bundle, every file of it checked.

        Raises:
            NotFoundError: It is gone.
            ConflictError: It is not what was proven; its kind is ``bundle``.
            ValidationFailedError: It is not what is asked for.
            UnavailableError: The registry or the artifact store went away.
        """
        model, version = selection.model, selection.version
        return self._asked_for(fetch_proven(registry, model, version, recorded, folder))

    def _asked_for(self, proven: ProvenBundle) -> ProvenBundle:
        bundle = proven.bundle
        # A killed export may have left tags of which some are older than others.
        if self.request.alias != "prod" and bundle.manifest.get("settings") != self.settings:
            raise ValidationFailedError(
                f"the bundle of version {bundle.version} was made with other settings",
                hint=f"Prove it again: stlab-export {bundle.model} --alias staging",
                kind="bundle",
            )
        if self.request.batching == "require" and not bundle.max_batch_size:
            raise cannot_be_batched(str(proven.parity["batching_reason"]))
        return proven
