"""The settings that decide a bundle's content, and their digest."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from exporter.bundle import file_digest
from exporter.parity.input_generator import SEED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.commands.export.request import ExportRequest

__all__ = ["settings_digest", "settings_of"]


def settings_of(
    request: ExportRequest, release_name: str, parts: Mapping[str, tuple[str, int]]
) -> dict[str, Any]:
    """Return the settings that, with the version, decide a bundle's content.

    Args:
        request: The request.
        release_name: The target release.
        parts: The preprocessing and postprocessing models with their versions, by place.
    """
    settings = {
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
    settings |= {place: f"{model}/{version}" for place, (model, version) in parts.items()}
    return settings


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return a short digest of settings, for a version's tags."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
