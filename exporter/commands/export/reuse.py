"""What an earlier export left of a version: its evidence, its bundle, what is served of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.commands.export.bundle_settings import settings_digest
from exporter.errors import ConflictError, ValidationFailedError
from exporter.parity.reference_set import cannot_be_batched
from exporter.proven_bundle import Proven, Recorded, fetch_proven, recorded_for, vouched
from exporter.registry import stands
from exporter.rollout.live_servers import answers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.commands.export.request import ExportRequest
    from exporter.registry import Registry, Selection
    from exporter.repository import Repository

__all__ = ["Earlier"]


@dataclass(frozen=True, slots=True)
class Earlier:
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

    def recorded(self, selection: Selection) -> Recorded | None:
        """Return the bundle that the version's tags name, if it is what is asked for.

        Raises:
            ConflictError: ``prod``, which takes nothing else, finds none.
        """
        tags = selection.tags
        if self.request.alias == "prod":
            # The very bundle that staging took: the version may have been exported again since.
            taken = recorded_for(tags, "staging")
            if taken is None:
                raise ConflictError(
                    f"version {selection.version} has no passed evidence",
                    hint=f"Prove it first: stlab-export {selection.model} --alias staging",
                )
            return taken
        passed = tags.get("stlab.parity") == "passed"
        if passed and tags.get("stlab.bundle.settings") == settings_digest(self.settings):
            return Recorded(tags.get("stlab.bundle.sha256", ""), tags.get("stlab.bundle.uri", ""))
        return None

    def settled(self, selection: Selection, recorded: Recorded | None) -> Proven | None:
        """Return what is proven, published, served and promoted already, if all of it is.

        Raises:
            ValidationFailedError: Batching is required of a version that cannot be batched.
            UnavailableError: A server does not answer.
        """
        if recorded is None or not stands(selection, self.request.alias, recorded.sha256):
            return None
        try:
            bundle = self.repository.bundle(selection.model, selection.version)
            if bundle is None or bundle.sha256 != recorded.sha256:
                return None
            proven = self._asked_for(vouched(bundle, recorded.uri))
        except ValidationFailedError as error:
            if error.kind == "batching":
                raise
            return None
        served = self.repository.serves(bundle)
        answered = served and all(answers(url, bundle) for url in self.request.triton_urls)
        return proven if answered else None

    def fetch(
        self, registry: Registry, selection: Selection, recorded: Recorded, folder: Path
    ) -> Proven:
        """Download a recorded bundle, every file of it checked.

        Raises:
            NotFoundError: It is gone.
            ConflictError: It is not what was proven; its kind is ``bundle``.
            ValidationFailedError: It is not what is asked for.
            UnavailableError: The registry or the artifact store went away.
        """
        model, version = selection.model, selection.version
        return self._asked_for(fetch_proven(registry, model, version, recorded, folder))

    def _asked_for(self, proven: Proven) -> Proven:
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
