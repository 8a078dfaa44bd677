"""Triton model repositories: where bundles are published and which versions are served."""

from exporter.repository.local import LocalRepository
from exporter.repository.workspace import Workspace

__all__ = ["LocalRepository", "Workspace"]
