"""The settings that decide a bundle's content, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from exporter.bundle import BundleSettings, file_digest
from exporter.commands.export.request import ExportRequest
from exporter.parity.input_generator import SEED

__all__ = ["settings_digest", "settings_of"]


def settings_of(
    request: ExportRequest, release_name: str, parts: Mapping[str, tuple[str, int]]
) -> BundleSettings:
    """Return the settings that, with the version, decide a bundle's content.

    Args:
        request: The request.
        release_name: The target release.
        parts: The preprocessing and postprocessing models with their versions, by place.
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
