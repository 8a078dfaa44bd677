"""Markers of the versions that are being uploaded to or deleted from an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.names import served_version

if TYPE_CHECKING:
    from exporter.repository.object_store import ObjectStore

__all__ = ["UnfinishedVersions"]

_PREFIX = "unfinished-"


class UnfinishedVersions:
    """One empty object ``unfinished-<version>`` per version that is not complete.

    Args:
        store: The store.
        folder: The folder with a subfolder per model, next to the repository's root.
    """

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._folder = folder

    def list(self, model: str) -> list[int]:
        """Return the marked versions of a model."""
        names = self._store.list(f"{self._folder}/{model}")
        marked = (served_version(n.removeprefix(_PREFIX)) for n in names if _PREFIX in n)
        return [version for version in marked if version is not None]

    def mark(self, model: str, version: int) -> None:
        """Mark a version as unfinished."""
        self._store.replace(self._name(model, version), b"")

    def clear(self, model: str, version: int) -> None:
        """Remove the marker of a version."""
        self._store.delete(self._name(model, version))

    def _name(self, model: str, version: int) -> str:
        return f"{self._folder}/{model}/{_PREFIX}{version}"
