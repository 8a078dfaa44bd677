"""A model's directory on an object store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from exporter.bundle import MANIFEST, Bundle
from exporter.repository.object_store import ObjectStore

__all__ = ["ObjectModelDir"]


@dataclass(frozen=True, slots=True)
class ObjectModelDir:
    """A listing of a model's directory; see `exporter.repository.model_dir.ModelDir`.

    Attributes:
        store: The store.
        folder: The directory's name in the store.
        sizes: The size in bytes of every file, by relative name.
    """

    store: ObjectStore
    folder: str
    sizes: Mapping[str, int]

    @classmethod
    def list(cls, store: ObjectStore, folder: str) -> Self:
        """List a model's directory."""
        return cls(store, folder, store.list(folder))

    def __str__(self) -> str:
        return f"{self.store.address}/{self.folder.partition('/')[2]}"

    def entries(self, folder: str = "") -> Collection[str]:
        """See `ModelDir.entries`."""
        prefix = f"{folder}/" if folder else ""
        below = (name.removeprefix(prefix) for name in self.sizes if name.startswith(prefix))
        return {name.partition("/")[0] for name in below}

    def has(self, name: str) -> bool:
        """See `ModelDir.has`."""
        return name in self.sizes

    def read(self, name: str) -> bytes | None:
        """See `ModelDir.read`."""
        return self.store.read(f"{self.folder}/{name}")

    def holds(self, bundle: Bundle, name: str, at: str) -> bool:
        """See `ModelDir.holds`."""
        size = self.sizes.get(at)
        if size is None or (name != MANIFEST and size != bundle.files[name]["bytes"]):
            return False
        return self.store.digest(f"{self.folder}/{at}", size) == bundle.digest(name)

    def begins(self, bundle: Bundle, name: str, at: str) -> bool:
        """See `ModelDir.begins`."""
        size = self.sizes.get(at)
        return size is not None and bundle.begins_with(
            name, size, self.store.digest(f"{self.folder}/{at}", size)
        )

    def version(self, version: int) -> Collection[str]:
        """Return the files of a version, relative to its folder."""
        prefix = f"{version}/"
        return [name.removeprefix(prefix) for name in self.sizes if name.startswith(prefix)]
