"""Find what an earlier export of a version with the same settings has done: bundle and rollout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import BundleSettings, file_digest
from exporter.commands.export.request import ExportRequest
from exporter.errors import ConflictError, ValidationFailedError
from exporter.parity.input_generator import SEED
from exporter.parity.reference_set import cannot_be_batched, cannot_stay_free
from exporter.proven_bundle import (
    BundleRef,
    ProvenBundle,
    fetch_proven,
    load_passed,
    recorded_bundle,
)
from exporter.registry import Registry, Selection
from exporter.registry.version_tags import BundleTags, has_passed
from exporter.repository import Repository
from exporter.rollout.rollout import is_rolled_out

__all__ = ["ReusableExport", "settings_digest", "settings_of"]


def settings_of(
    request: ExportRequest, release_name: str, parts: Mapping[str, tuple[str, int]]
) -> BundleSettings:
    """Return the settings that, with the version, decide a bundle's content.

    ``parts`` are the preprocessing and postprocessing models with their versions, by place.
    """
    settings: BundleSettings = {
        "format": request.format,
        "precision": request.precision,
        "batching": "off" if request.batching == "off" else "auto",
        "max_batch_size": request.max_batch_size,
        "release": release_name,
        "samples": None if request.samples is None else file_digest(request.samples),
        "seed": SEED,
    }
    # Only if set, so that the digest of bundles without it stays the same.
    if request.max_queue_size:
        settings["max_queue_size"] = request.max_queue_size
    if request.accelerator:
        settings["accelerator"] = request.accelerator
    if "preprocessing" in parts:
        settings["preprocessing"] = "/".join(map(str, parts["preprocessing"]))
    if "postprocessing" in parts:
        settings["postprocessing"] = "/".join(map(str, parts["postprocessing"]))
    return settings


def settings_digest(settings: BundleSettings) -> str:
    """Return a short digest of settings, for a version's tags."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ReusableExport:
    """Finds the parts of an earlier export that a request can reuse."""

    request: ExportRequest
    settings: BundleSettings
    repository: Repository
    selection: Selection

    def find_bundle(self) -> BundleRef | None:
        """Return the recorded bundle of the version, if it was built with the same settings.

        For ``prod`` it is a ConflictError that there is none.
        """
        selection, tags = self.selection, self.selection.tags
        if self.request.alias == "prod":
            # Not the newest bundle: the version may have been exported again after staging.
            staged = recorded_bundle(tags, "staging")
            if staged is None:
                raise ConflictError(
                    f"version {selection.version} has no passing evidence for 'staging'",
                    hint=f"Prove it first: stlab-export {selection.model} --alias staging",
                )
            return staged
        newest = BundleTags.read(tags)
        if has_passed(tags) and newest.settings == settings_digest(self.settings):
            return BundleRef(newest.sha256, newest.uri)
        return None

    def find_up_to_date(self, recorded: BundleRef | None) -> ProvenBundle | None:
        """Return the bundle if it is proven, published, served and promoted already."""
        if recorded is None:
            return None
        request, selection = self.request, self.selection
        try:
            bundle = self.repository.bundle(selection.model, selection.version)
            if bundle is None or bundle.sha256 != recorded.sha256:
                return None
            proven = self._check_request(load_passed(bundle, recorded.uri))
        except ValidationFailedError as error:
            if error.kind == "batching":
                raise
            return None
        up_to_date = is_rolled_out(
            self.repository, selection, request.alias, bundle, request.triton_urls
        )
        return proven if up_to_date else None

    def fetch(self, registry: Registry, recorded: BundleRef, folder: Path) -> ProvenBundle:
        """Download a recorded bundle, and check every file.

        Raises:
            NotFoundError: The bundle is gone.
            ConflictError: The files are not those that were proven; the kind is ``bundle``.
            ValidationFailedError: The bundle has other settings, or cannot be batched.
            UnavailableError: The registry or the artifact store does not answer.
        """
        model, version = self.selection.model, self.selection.version
        return self._check_request(fetch_proven(registry, model, version, recorded, folder))

    def _check_request(self, proven: ProvenBundle) -> ProvenBundle:
        bundle = proven.bundle
        # A killed export may have updated only some of the tags.
        if self.request.alias != "prod" and bundle.manifest.get("settings") != self.settings:
            raise ValidationFailedError(
                f"the bundle of version {bundle.version} was built with other settings",
                hint=f"Prove it again: stlab-export {bundle.model} --alias staging",
                kind="bundle",
            )
        if self.request.batching == "require" and not bundle.max_batch_size:
            raise cannot_be_batched(str(proven.parity["batching_reason"]))
        if self.request.batching == "require" and (frozen := bundle.manifest.get("frozen_axes")):
            raise cannot_stay_free(str(frozen[0]))
        return proven
