"""One narrow interface over object stores: read, create, replace, upload, list, delete.

Names are relative to the folder that holds a repository's root: ``models/net/config.pbtxt`` of the
repository ``s3://bucket/production/models``. Nothing is believed that was listed before.
"""

from __future__ import annotations

import hashlib
import time
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from exporter.errors import ConflictError, UnavailableError
from exporter.repository.fsspec_drivers import OPERATION_SECONDS, connect, translate_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from exporter.repository.url import StoreUrl

__all__ = ["ObjectStore"]

_CHUNK = 16 * 2**20
# A line slower than this many bytes a second is taken for a dead one.
_SLOWEST = 2**20
_TRIES, _PAUSE_SECONDS = 5, 0.1
_TIMES = ("LastModified", "last_modified", "mtime", "updated")


class ObjectStore:
    """The objects below one folder of a bucket.

    Args:
        address: Of the repository; its root's parent is where names begin.

    Every method raises what `exporter.repository.fsspec_drivers.translate_errors` does.
    """

    def __init__(self, address: StoreUrl) -> None:
        self.address = address

    @cached_property
    def _files(self) -> Any:
        return connect(self.address)

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None where there is none."""
        try:
            with translate_errors(self.address):
                return bytes(self._files.cat_file(self._path(name), timeout=OPERATION_SECONDS))
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one, in one step.

        Args:
            name: The object.
            content: What it is to hold; nobody else may write the same, so that a request whose
                answer was lost can be told from one that somebody else was before.

        Returns:
            Whether it was created.
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
        """Write an object, whatever is there."""
        with translate_errors(self.address, writes=True):
            self._files.pipe_file(self._path(name), content, timeout=_limit(len(content)))

    def upload(self, name: str, path: Path, sha256: str) -> None:
        """Write a local file, and read back what has arrived.

        Args:
            name: The object.
            path: The file.
            sha256: The digest of what it must hold.

        Raises:
            UnavailableError: The object is not what was sent.
        """
        size = path.stat().st_size
        with translate_errors(self.address, writes=True):
            self._files.put_file(str(path), self._path(name), timeout=_limit(size))
        if self.digest(name, size) != sha256:
            raise UnavailableError(
                f"{name} arrived at {self.address} otherwise than it was proven",
                hint="Run the same command again; if it happens again, look at the store.",
            )

    def digest(self, name: str, size: int) -> str:
        """Return the sha256 of an object's first bytes, as hex; empty where there is none."""
        digest = hashlib.sha256()
        try:
            for content in self._chunks(name, size):
                digest.update(content)
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def download(self, name: str, path: Path, size: int) -> None:
        """Write an object's first bytes into a local file; one that is not there makes no file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                file.writelines(self._chunks(name, size))
        except FileNotFoundError:
            path.unlink()

    def list(self, folder: str) -> Mapping[str, int]:
        """Return the objects below a folder by their names relative to it, with their bytes."""
        path = f"{self._path(folder)}/"
        self._files.invalidate_cache()
        try:
            with translate_errors(self.address):
                found = self._files.find(path[:-1], detail=True, timeout=OPERATION_SECONDS)
        except FileNotFoundError:
            return {}
        # What ends with a slash is a folder's marker, which some tools make.
        return {
            name.removeprefix(path): int(entry["size"] or 0)
            for name, entry in sorted(found.items())
            if name.startswith(path) and not name.endswith("/") and entry["type"] == "file"
        }

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        try:
            with translate_errors(self.address):
                self._files.rm_file(self._path(name), timeout=OPERATION_SECONDS)
        except FileNotFoundError:
            return

    def written(self, name: str) -> datetime | None:
        """Return when an object was written, by the store's own clock; None where it is not."""
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
    """Return the seconds that a transfer of so many bytes may take."""
    return OPERATION_SECONDS + size / _SLOWEST
