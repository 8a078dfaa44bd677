"""The MLflow Model Registry: versions, aliases, tags, and bundles in runs."""

from exporter.registry.connection import Registry, Selection
from exporter.registry.moving import clean_up, promote, stands
from exporter.registry.parts import parts_of
from exporter.registry.promotion import Promotion, claims, kept_in, promotion
from exporter.registry.runs import ExportRun, fetch_bundle

__all__ = [
    "ExportRun",
    "Promotion",
    "Registry",
    "Selection",
    "claims",
    "clean_up",
    "fetch_bundle",
    "kept_in",
    "parts_of",
    "promote",
    "promotion",
    "stands",
]
