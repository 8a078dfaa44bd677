"""stlab's own objects next to a repository on an object store: its identifier, and markers.

They are next to the root, since Triton takes every folder in it for a model.
"""

from __future__ import annotations

import uuid

from exporter.names import served_version
from exporter.repository.object_store import ObjectStore
from exporter.repository.workspace import FORMER_IDENTITY, IDENTITY

__all__ = ["ObjectState"]

_UNFINISHED = "unfinished-"


class ObjectState:
    """The repository's identifier, and an empty object for every unfinished version.

    Args:
        store: The store.
        name: The name of the repository's root.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._folder = f".{name}.stlab"

    def folder(self, model: str) -> str:
        """Return the folder of a model, which holds its locks as well."""
        return f"{self._folder}/{model}"

    def identity(self) -> str:
        """Return the repository's identifier; empty before its first use."""
        found = self._read(IDENTITY) or self._read(FORMER_IDENTITY) or b""
        return found.decode(errors="replace").strip()

    def create_identity(self) -> None:
        """Give the repository its identifier, unless it has one."""
        if not self._read(IDENTITY):
            identity = self._read(FORMER_IDENTITY) or uuid.uuid4().hex.encode()
            self._store.create(f"{self._folder}/{IDENTITY}", identity)

    def unfinished(self, model: str) -> list[int]:
        """Return the versions of a model that are marked as unfinished."""
        names = self._store.list(self.folder(model))
        marked = (served_version(n.removeprefix(_UNFINISHED)) for n in names if _UNFINISHED in n)
        return [version for version in marked if version is not None]

    def mark(self, model: str, version: int) -> None:
        """Mark a version as unfinished."""
        self._store.replace(self._marker(model, version), b"")

    def clear(self, model: str, version: int) -> None:
        """Remove the mark of a version."""
        self._store.delete(self._marker(model, version))

    def _marker(self, model: str, version: int) -> str:
        return f"{self.folder(model)}/{_UNFINISHED}{version}"

    def _read(self, name: str) -> bytes | None:
        return self._store.read(f"{self._folder}/{name}")
