"""A narrow interface of object stores: read, create, replace, upload, list, delete.

Names are relative to the folder that holds a repository's root: ``models/net/config.pbtxt`` of the
repository ``s3://bucket/production/models``. Listings are never cached.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from exporter.errors import ConflictError, UnavailableError
from exporter.repository.fsspec_drivers import OPERATION_SECONDS, connect, translate_errors
from exporter.repository.url import StoreUrl

__all__ = ["ObjectStore"]

_CHUNK = 16 * 2**20
# Bytes per second below which a transfer counts as stalled.
_SLOWEST = 2**20
_TRIES, _PAUSE_SECONDS = 5, 0.1
_TIMES = ("LastModified", "last_modified", "mtime", "updated")


class ObjectStore:
    """The objects below one folder of a bucket.

    Args:
        address: The repository; names are relative to the parent of its root.

    Every method raises the errors of `exporter.repository.fsspec_drivers.translate_errors`.
    """

    def __init__(self, address: StoreUrl) -> None:
        self.address = address

    @cached_property
    def _files(self) -> Any:
        return connect(self.address)

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it does not exist."""
        try:
            with translate_errors(self.address):
                return bytes(self._files.cat_file(self._path(name), timeout=OPERATION_SECONDS))
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> bool:
        """Create an object atomically, unless it exists.

        Args:
            name: The object.
            content: The content, which must be unique to the caller: that tells a request whose
                answer was lost from an object that another process created.

        Returns:
            Whether the object was created.
        """
        for rest in reversed(range(_TRIES)):
            try:
                with translate_errors(self.address, writes=True):
                    self._files.pipe_file(
                        self._path(name), content, mode="create", timeout=OPERATION_SECONDS
                    )
            except FileExistsError:
                return self.read(name) == content
            except ConflictError:
                if not rest:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                break
        return True

    def replace(self, name: str, content: bytes) -> None:
        """Write an object, or overwrite it."""
        with translate_errors(self.address, writes=True):
            self._files.pipe_file(self._path(name), content, timeout=_limit(len(content)))

    def upload(self, name: str, path: Path, sha256: str) -> None:
        """Upload a local file, and verify the object by reading it back.

        Raises:
            UnavailableError: The object differs from the file.
        """
        size = path.stat().st_size
        with translate_errors(self.address, writes=True):
            self._files.put_file(str(path), self._path(name), timeout=_limit(size))
        if self.digest(name, size) != sha256:
            raise UnavailableError(
                f"checksum mismatch after upload of {name} to {self.address}",
                hint="Run the same command again; if it happens again, check the store.",
            )

    def digest(self, name: str, size: int) -> str:
        """Return the sha256 of an object's first ``size`` bytes; empty if it does not exist."""
        digest = hashlib.sha256()
        try:
            for content in self._chunks(name, size):
                digest.update(content)
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def download(self, name: str, path: Path, size: int) -> None:
        """Download an object's first ``size`` bytes to a file; no file if it does not exist."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                file.writelines(self._chunks(name, size))
        except FileNotFoundError:
            path.unlink()

    def list(self, folder: str) -> Mapping[str, int]:
        """Return the size in bytes of every object below a folder, by relative name."""
        path = f"{self._path(folder)}/"
        self._files.invalidate_cache()
        try:
            with translate_errors(self.address):
                found = self._files.find(path[:-1], detail=True, timeout=OPERATION_SECONDS)
        except FileNotFoundError:
            return {}
        # A name that ends with a slash is a folder marker, which some tools create.
        return {
            name.removeprefix(path): int(entry["size"] or 0)
            for name, entry in sorted(found.items())
            if name.startswith(path) and not name.endswith("/") and entry["type"] == "file"
        }

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""
        try:
            with translate_errors(self.address):
                self._files.rm_file(self._path(name), timeout=OPERATION_SECONDS)
        except FileNotFoundError:
            return

    def written(self, name: str) -> datetime | None:
        """Return when an object was written, by the store's clock; None if it does not exist."""
        self._files.invalidate_cache()
        try:
            with translate_errors(self.address):
                found = self._files.info(self._path(name), timeout=OPERATION_SECONDS)
        except FileNotFoundError:
            return None
        when = next((found[key] for key in _TIMES if found.get(key)), None)
        return datetime.fromisoformat(when) if isinstance(when, str) else when

    def _chunks(self, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, _CHUNK):
            end = min(start + _CHUNK, size)
            with translate_errors(self.address):
                yield self._files.cat_file(
                    self._path(name), start=start, end=end, timeout=_limit(end - start)
                )

    def _path(self, name: str) -> str:
        return f"{self.address.parent}/{name}"


def _limit(size: int) -> float:
    """Return how many seconds a transfer of this many bytes may take."""
    return OPERATION_SECONDS + size / _SLOWEST
