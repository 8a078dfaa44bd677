"""The MLflow Model Registry: versions, aliases, tags, and bundles in runs."""

from exporter.registry.connection import Registry, Selection, promoted_bundle
from exporter.registry.runs import ExportRun

__all__ = ["ExportRun", "Registry", "Selection", "promoted_bundle"]
