"""A Triton model repository in a local folder.

A version's directory appears whole, by one rename, and is never overwritten. Which versions are
served is said by the model's config.pbtxt alone, which is replaced in one step.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.bundle import CONFIG, MANIFEST, Bundle, file_digest
from exporter.errors import StlabError
from exporter.repository.atomic_files import (
    copy_file,
    durable,
    open_to_readers,
    replace_file,
    sync,
    translate_errors,
)
from exporter.repository.base import Publication, merged_config
from exporter.repository.model_dir import (
    lay_out,
    reject_foreign_files,
    served_versions,
    versions_at,
    warmup_files,
)
from exporter.repository.published import (
    check_not_served,
    check_replaceable,
    is_remnant,
    is_served,
    possibly_served,
    published_state,
    unused_warmup_files,
)
from exporter.repository.workspace import Workspace, has_leftovers, read_identity
from exporter.triton.model_config import render

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

__all__ = ["LocalRepository"]


@dataclass(frozen=True, slots=True)
class Folder:
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
class LocalRepository:
    """The repository below one folder.

    Attributes:
        root: The folder that a server is given as ``--model-repository``.
    """

    root: Path

    @contextmanager
    def workspace(self, model: str) -> Iterator[Path]:
        """See `Repository.workspace`; the folder lies on the repository's filesystem."""
        with Workspace.open(self.root, model) as work:
            yield work.path

    def identity(self) -> str:
        """See `Repository.identity`."""
        return read_identity(self.root)

    def clean_up(self, model: str) -> None:
        """See `Repository.clean_up`."""
        if has_leftovers(self.root, model):
            with suppress(StlabError), self.workspace(model):
                pass  # it begins with that

    def ensure_locked(self, model: str) -> None:
        """See `Repository.ensure_locked`; the kernel takes no lock from a living holder."""

    def versions(self, model: str) -> tuple[int, ...]:
        """See `Repository.versions`."""
        return versions_at(self._folder(model))

    def bundle(self, model: str, version: int) -> Bundle | None:
        """See `Repository.bundle`."""
        path = self._place(model, version)
        return Bundle.open(path, model, version) if (path / MANIFEST).is_file() else None

    def fetch(
        self,
        bundle: Bundle,
        folder: Path,  # noqa: ARG002 - they are at hand
    ) -> Bundle:
        """See `Repository.fetch`."""
        self.verify(bundle)
        return bundle

    def verify(self, bundle: Bundle) -> None:
        """See `Repository.verify`."""
        Bundle(self._place(bundle.model, bundle.version), bundle.manifest).verify()

    def served_versions(self, model: str) -> tuple[int, ...]:
        """See `Repository.served_versions`."""
        return served_versions(self._folder(model))

    def is_serving(self, bundle: Bundle) -> bool:
        """See `Repository.is_serving`."""
        return is_served(self, bundle, self._folder(bundle.model))

    def publish(self, bundle: Bundle, work: Path) -> Publication | None:
        """See `Repository.publish`.

        A model that is new here arrives with its config in one rename, since it has nothing to
        switch from.
        """
        with translate_errors(self.root):
            place = self._folder(bundle.model)
            reject_foreign_files(place)
            target = self._place(bundle.model, bundle.version)
            ours, whole = published_state(self, bundle)
            ours = ours or is_remnant(bundle, place)
            if whole:
                self._add_warmup(bundle)
                return None
            if target.is_dir() and not ours:
                check_replaceable(self, bundle, place)
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
            publication = Publication(displaced=self._set_aside(target, work))
            try:
                self._add_warmup(bundle)
                (folder / target.name).rename(target)
                sync(target.parent)
            except BaseException:
                self.unpublish(bundle, publication, work)
                raise
            return None if ours else publication

    def unpublish(self, bundle: Bundle, publication: Publication, work: Path) -> None:
        """See `Repository.unpublish`: without the version that it names the server had nothing."""
        with translate_errors(self.root):
            target = self._place(bundle.model, bundle.version)
            if publication.is_new_model:
                self._remove(target.parent, work)
                return
            if bundle.version in possibly_served(self, bundle.model):
                return
            self._remove(target, work)
            if publication.displaced is not None:
                publication.displaced.rename(target)
                sync(target.parent)
            self._drop_warmup(bundle.model, list(warmup_files(bundle)))

    def check_compatible(self, bundle: Bundle, beside: Iterable[int]) -> None:
        """See `Repository.check_compatible`."""
        merged_config(self, bundle, beside)

    def activate(self, bundle: Bundle, beside: Iterable[int], work: Path) -> Path | None:
        """See `Repository.activate`."""
        with translate_errors(self.root):
            path = self.root / bundle.model / CONFIG
            text = render(merged_config(self, bundle, beside))
            kept = None
            if path.is_file():
                kept = work / f"config-{uuid.uuid4().hex}"
                copy_file(path, kept)
            if kept is None or text.encode() != kept.read_bytes():
                replace_file(path, text.encode(), work)
            return kept

    def restore_config(self, model: str, kept: Path | None) -> None:
        """Undo `activate`; it takes no room on the disk."""
        with translate_errors(self.root):
            path = self.root / model / CONFIG
            if kept is None:
                path.unlink(missing_ok=True)
            else:
                kept.replace(path)
                # A server reads again what has become newer.
                os.utime(path)
            sync(path.parent)

    def remove(self, model: str, version: int, work: Path) -> None:
        """See `Repository.remove`."""
        check_not_served(self, model, version)
        with translate_errors(self.root):
            bundle = self.bundle(model, version)
            self._remove(self._place(model, version), work)
            self._drop_warmup(model, () if bundle is None else list(warmup_files(bundle)))

    def _folder(self, model: str) -> Folder:
        return Folder(self.root / model)

    def _place(self, model: str, version: int) -> Path:
        return self.root / model / str(version)

    def _drop_warmup(self, model: str, names: Collection[str]) -> None:
        for name in unused_warmup_files(self, model, self._folder(model), names):
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

    def _set_aside(self, path: Path, work: Path) -> Path | None:
        """Move something out of the root, if it is there, and return where it lies now."""
        if not path.exists():
            return None
        away = work / f"removed-{uuid.uuid4().hex}"
        path.rename(away)
        sync(path.parent)
        return away

    def _remove(self, path: Path, work: Path) -> None:
        away = self._set_aside(path, work)
        if away is not None:
            shutil.rmtree(away, ignore_errors=True)
