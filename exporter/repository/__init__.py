"""Triton model repositories: where bundles are published and which versions are served."""

from __future__ import annotations

from pathlib import Path

from exporter.repository.base import Publication, Repository
from exporter.repository.local import LocalRepository
from exporter.repository.workspace import Workspace

__all__ = ["LocalRepository", "Publication", "Repository", "Workspace", "open_repository"]


def open_repository(url: str) -> Repository:
    """Return the repository in a local folder.

    Args:
        url: The folder.
    """
    return LocalRepository(Path(url))
