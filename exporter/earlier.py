"""What an earlier export left of a version: its evidence, its bundle, what is served of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.activation import answers
from exporter.building import settings_digest
from exporter.errors import ConflictError, ValidationFailed
from exporter.parity.evidence import in_short
from exporter.parity.reference import cannot_be_batched
from exporter.registry import promoted_bundle
from exporter.registry.runs import fetch_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.bundle import Bundle
    from exporter.registry import Registry, Selection
    from exporter.repository import Repository
    from exporter.settings import ExportRequest

__all__ = ["Earlier", "Proven", "Recorded"]


@dataclass(frozen=True, slots=True)
class Proven:
    """A bundle with passed evidence.

    Attributes:
        bundle: The bundle.
        parity: Its evidence in short.
        uri: Where the registry keeps it.
        reused: Whether an earlier export made it.
    """

    bundle: Bundle
    parity: Mapping[str, Any]
    uri: str
    reused: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """The bundle that a version's tags name as proven.

    Attributes:
        sha256: Its digest.
        uri: Where the registry keeps it.
    """

    sha256: str
    uri: str


@dataclass(frozen=True, slots=True)
class Earlier:
    """Looks for what one request can take over.

    Attributes:
        request: The request.
        settings: What decides a bundle's content; see `exporter.building.settings_of`.
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
        passed = tags.get("stlab.parity") == "passed"
        if self.request.alias == "prod":
            # The very bundle that staging took: the version may have been exported again since.
            bundle = promoted_bundle(tags, "staging") if passed else None
            if bundle is None:
                raise ConflictError(
                    f"version {selection.version} has no passed evidence",
                    hint=f"Prove it first: stlab-export {selection.model} --alias staging",
                )
            return Recorded(*bundle)
        if passed and tags.get("stlab.bundle.settings") == settings_digest(self.settings):
            return Recorded(tags.get("stlab.bundle.sha256", ""), tags.get("stlab.bundle.uri", ""))
        return None

    def settled(self, selection: Selection, recorded: Recorded | None) -> Proven | None:
        """Return what is proven, published, served and promoted already, if all of it is.

        Raises:
            ValidationFailed: Batching is required of a version that cannot be batched.
            UnavailableError: A server does not answer.
        """
        if selection.previous != selection.version or recorded is None:
            return None
        try:
            bundle = self.repository.bundle(selection.model, selection.version)
            if bundle is None or bundle.sha256 != recorded.sha256:
                return None
            proven = self._vouched(bundle, recorded.uri)
        except ValidationFailed as error:
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
            ValidationFailed: It is not what was proven, or not what is asked for.
            UnavailableError: The registry or the artifact store went away.
        """
        bundle = fetch_bundle(
            registry,
            selection.model,
            selection.version,
            uri=recorded.uri,
            sha256=recorded.sha256,
            folder=folder,
        )
        return self._vouched(bundle, recorded.uri)

    def _vouched(self, bundle: Bundle, uri: str) -> Proven:
        report = bundle.passed_report()
        if report is None:
            raise ValidationFailed(
                f"version {bundle.version} is tagged as proven, its report says otherwise",
                hint=f"Prove it again: stlab-export {bundle.model} --alias staging",
                kind="bundle",
            )
        # A killed export may have left tags of which some are older than others.
        if self.request.alias != "prod" and bundle.manifest["settings"] != self.settings:
            raise ValidationFailed(
                f"the bundle of version {bundle.version} was made with other settings",
                hint=f"Prove it again: stlab-export {bundle.model} --alias staging",
                kind="bundle",
            )
        if self.request.batching == "require" and not bundle.max_batch_size:
            raise cannot_be_batched(report["parity"]["batching_reason"])
        return Proven(bundle, in_short(report["parity"]), uri, reused=True)
