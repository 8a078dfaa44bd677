"""Adapter of the MLflow Model Registry: versions, aliases, tags, and bundles in runs."""

from exporter.registry.client import Registry, Selection
from exporter.registry.pipeline_tags import pipeline_models
from exporter.registry.promote import is_current, promote
from exporter.registry.promotion_record import (
    PromotionRecord,
    open_records,
    promotion,
    repository_of,
)
from exporter.registry.runs import ExportRun, clean_up, fetch_bundle

__all__ = [
    "ExportRun",
    "PromotionRecord",
    "Registry",
    "Selection",
    "clean_up",
    "fetch_bundle",
    "is_current",
    "open_records",
    "pipeline_models",
    "promote",
    "promotion",
    "repository_of",
]
