"""A Triton model repository in a local folder.

A version's complete directory appears by one rename, and is never overwritten. The model's
config.pbtxt alone decides which versions are served; it is replaced atomically.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import CONFIG, MANIFEST, Bundle, file_digest
from exporter.repository.atomic_files import (
    copy_file,
    durable,
    open_to_readers,
    replace_file,
    sync,
    translate_errors,
)
from exporter.repository.base import Publication, Repository
from exporter.repository.model_dir import lay_out, warmup_files
from exporter.repository.workspace import has_leftovers, open_workspace, read_identity
from exporter.triton.model_config import render

__all__ = ["LocalRepository"]


@dataclass(frozen=True, slots=True)
class LocalModelDir:
    """A model's directory in a local folder; see `exporter.repository.model_dir.ModelDir`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def entries(self, folder: str = "") -> Collection[str]:
        """See `ModelDir.entries`."""
        path = self.path / folder
        return [entry.name for entry in path.iterdir()] if path.is_dir() else []

    def has(self, name: str) -> bool:
        """See `ModelDir.has`."""
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes | None:
        """See `ModelDir.read`."""
        return (self.path / name).read_bytes() if self.has(name) else None

    def holds(self, bundle: Bundle, name: str, at: str) -> bool:
        """See `ModelDir.holds`."""
        return bundle.holds(name, self.path / at)

    def begins(self, bundle: Bundle, name: str, at: str) -> bool:
        """See `ModelDir.begins`."""
        path = self.path / at
        return path.is_file() and bundle.begins_with(name, path.stat().st_size, file_digest(path))


@dataclass(frozen=True, slots=True)
class LocalRepository(Repository):
    """The repository below one folder.

    Attributes:
        root: The folder, a server's ``--model-repository``.
    """

    root: Path

    def workspace(self, model: str) -> AbstractContextManager[Path]:
        """See `Repository.workspace`; the folder is on the repository's filesystem."""
        return open_workspace(self.root, model)

    def identity(self) -> str:
        """See `Repository.identity`."""
        return read_identity(self.root)

    def has_leftovers(self, model: str) -> bool:
        """See `Repository.has_leftovers`."""
        return has_leftovers(self.root, model)

    def ensure_locked(self, model: str) -> None:
        """See `Repository.ensure_locked`; a flock cannot expire."""

    def model_dir(self, model: str) -> LocalModelDir:
        """See `Repository.model_dir`."""
        return LocalModelDir(self.root / model)

    def bundle(self, model: str, version: int) -> Bundle | None:
        """See `Repository.bundle`."""
        path = self._version_dir(model, version)
        return Bundle.open(path, model, version) if (path / MANIFEST).is_file() else None

    def fetch(
        self,
        bundle: Bundle,
        folder: Path,  # noqa: ARG002 - the files are local
    ) -> Bundle:
        """See `Repository.fetch`."""
        self.verify(bundle)
        return bundle

    def verify(self, bundle: Bundle) -> None:
        """See `Repository.verify`."""
        Bundle(self._version_dir(bundle.model, bundle.version), bundle.manifest).verify()

    def publish(self, bundle: Bundle, work: Path) -> Publication | None:
        """See `Repository.publish`.

        A new model's directory is moved in with its config, by one rename.
        """
        with translate_errors(self.root):
            same, intact = self._check_publishable(bundle, self.model_dir(bundle.model))
            if intact:
                self._add_warmup(bundle)
                return None
            target = self._version_dir(bundle.model, bundle.version)
            folder = work / f"publish-{uuid.uuid4().hex}" / bundle.model
            lay_out(bundle, folder, bundle.config)
            open_to_readers(folder)
            durable(folder)
            if not target.parent.is_dir():
                if not self.root.is_dir():
                    self.root.mkdir(parents=True)
                    self.root.chmod(0o755)
                folder.rename(target.parent)
                sync(self.root)
                return Publication(is_new_model=True)
            publication = Publication(displaced=self._move_out(target, work))
            try:
                self._add_warmup(bundle)
                (folder / target.name).rename(target)
                sync(target.parent)
            except BaseException:
                self.unpublish(bundle, publication, work)
                raise
            return None if same else publication

    def unpublish(self, bundle: Bundle, publication: Publication, work: Path) -> None:
        """See `Repository.unpublish`."""
        with translate_errors(self.root):
            target = self._version_dir(bundle.model, bundle.version)
            if publication.is_new_model:
                self._remove(target.parent, work)
                return
            if bundle.version in self.possibly_served(bundle.model):
                return
            self._remove(target, work)
            if publication.displaced is not None:
                publication.displaced.rename(target)
                sync(target.parent)
            self._drop_warmup(bundle.model, list(warmup_files(bundle)))

    def activate(self, bundle: Bundle, other_versions: Iterable[int], work: Path) -> Path | None:
        """See `Repository.activate`."""
        with translate_errors(self.root):
            path = self.root / bundle.model / CONFIG
            text = render(self.merged_config(bundle, other_versions))
            previous = None
            if path.is_file():
                previous = work / f"config-{uuid.uuid4().hex}"
                copy_file(path, previous)
            if previous is None or text.encode() != previous.read_bytes():
                replace_file(path, text.encode(), work)
            return previous

    def restore_config(self, model: str, previous: Path | None) -> None:
        """See `Repository.restore_config`; it needs no disk space."""
        with translate_errors(self.root):
            path = self.root / model / CONFIG
            if previous is None:
                path.unlink(missing_ok=True)
            else:
                previous.replace(path)
                # A server reloads a file only if it has become newer.
                os.utime(path)
            sync(path.parent)

    def delete(self, model: str, version: int, work: Path) -> None:
        """See `Repository.delete`."""
        with translate_errors(self.root):
            bundle = self.bundle(model, version)
            self._remove(self._version_dir(model, version), work)
            self._drop_warmup(model, () if bundle is None else list(warmup_files(bundle)))

    def _version_dir(self, model: str, version: int) -> Path:
        return self.root / model / str(version)

    def _drop_warmup(self, model: str, names: Collection[str]) -> None:
        for name in self._unused_warmup(model, names):
            (self.root / model / name).unlink(missing_ok=True)

    def _add_warmup(self, bundle: Bundle) -> None:
        for name in warmup_files(bundle):
            target = self.root / bundle.model / name
            if bundle.holds(name, target):
                continue
            if not target.parent.is_dir():
                target.parent.mkdir()
                target.parent.chmod(0o755)
            temporary = bundle.path.parent / f"warmup-{uuid.uuid4().hex}"
            shutil.copyfile(bundle.path / name, temporary)
            temporary.chmod(0o644)
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)

    def _move_out(self, path: Path, work: Path) -> Path | None:
        """Move a folder out of the root, if it exists, and return its new path."""
        if not path.exists():
            return None
        moved = work / f"removed-{uuid.uuid4().hex}"
        path.rename(moved)
        sync(path.parent)
        return moved

    def _remove(self, path: Path, work: Path) -> None:
        moved = self._move_out(path, work)
        if moved is not None:
            shutil.rmtree(moved, ignore_errors=True)
