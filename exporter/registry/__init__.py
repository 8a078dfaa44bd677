"""The MLflow Model Registry: versions, aliases, tags, and bundles in runs."""

from exporter.registry.client import Registry, Selection
from exporter.registry.pipeline_tags import parts_of
from exporter.registry.promote import clean_up, promote, stands
from exporter.registry.promotion_record import Promotion, claims, kept_in, promotion
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
