"""A Triton model repository in a local folder.

A version's directory appears whole, by one rename, and is never overwritten. Which versions are
served is said by the model's config.pbtxt alone, which is replaced in one step.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.bundle import CONFIG, MANIFEST, WARMUP, Bundle
from exporter.config import render
from exporter.errors import ConflictError, ValidationFailed
from exporter.names import served_version
from exporter.repository.base import Publication, agreed_config
from exporter.repository.files import (
    copy_file,
    durable,
    open_to_readers,
    replace_file,
    sync,
    translated,
)
from exporter.repository.layout import check_ours, lay_out, lies_at, live_config
from exporter.repository.workspace import Workspace, read_identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["LocalRepository"]


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

    def versions(self, model: str) -> tuple[int, ...]:
        """See `Repository.versions`."""
        found = (served_version(path.parent.name) for path in self._manifests(model))
        return tuple(sorted(version for version in found if version is not None))

    def bundle(self, model: str, version: int) -> Bundle | None:
        """See `Repository.bundle`."""
        path = self._place(model, version)
        return Bundle.open(path, model, version) if (path / MANIFEST).is_file() else None

    def verify(self, bundle: Bundle) -> None:
        """See `Repository.verify`."""
        Bundle.open(
            self._place(bundle.model, bundle.version), bundle.model, bundle.version
        ).verify()

    def served(self, model: str) -> tuple[int, ...]:
        """See `Repository.served`."""
        config = live_config(self.root / model)
        return () if config is None else tuple(config.version_policy.specific.versions)

    def serves(self, bundle: Bundle) -> bool:
        """See `Repository.serves`."""
        try:
            check_ours(self.root / bundle.model)
            published = self.bundle(bundle.model, bundle.version)
            if published is None or published.sha256 != bundle.sha256:
                return False
            published.verify()
            live = live_config(self.root / bundle.model)
            served = [] if live is None else list(live.version_policy.specific.versions)
            # With another version beside it, the config may be that of the other's bundle.
            bundles = [self.bundle(bundle.model, version) for version in served]
            configs = [agreed_config(self, other, served) for other in bundles if other is not None]
        except (ConflictError, ValidationFailed):
            return False
        whole = all(bundle.holds(name, path) for name, path in self._warmup(bundle))
        return whole and bundle.version in served and live in configs

    def publish(self, bundle: Bundle, work: Path) -> Publication | None:
        """See `Repository.publish`.

        A model that is new here arrives with its config in one rename, since it has nothing to
        switch from.
        """
        with translated(self.root):
            check_ours(self.root / bundle.model)
            target = self._place(bundle.model, bundle.version)
            ours, whole = lies_at(bundle, target)
            if whole:
                self._add_warmup(bundle)
                return None
            if target.is_dir() and not ours and bundle.version in self.served(bundle.model):
                raise ConflictError(
                    f"version {bundle.version} of '{bundle.model}' is served from {self.root} with "
                    "another bundle, and a published version is never overwritten",
                    hint="Register the model as a new version, or export to another --repository.",
                )
            folder = work / "publish" / bundle.model
            lay_out(bundle, folder, bundle.config)
            open_to_readers(folder)
            durable(folder)
            if not target.parent.is_dir():
                if not self.root.is_dir():
                    self.root.mkdir(parents=True)
                    self.root.chmod(0o755)
                folder.rename(target.parent)
                sync(self.root)
                return Publication(fresh=True)
            publication = Publication(displaced=self._set_aside(target, work))
            try:
                self._add_warmup(bundle)
                (folder / target.name).rename(target)
                sync(target.parent)
            except BaseException:
                self.withdraw(bundle, publication, work)
                raise
            return None if ours else publication

    def withdraw(self, bundle: Bundle, publication: Publication, work: Path) -> None:
        """See `Repository.withdraw`: without the version that it names the server had nothing."""
        with translated(self.root):
            target = self._place(bundle.model, bundle.version)
            if publication.fresh:
                self._remove(target.parent, work)
                return
            if bundle.version in self.served(bundle.model):
                return
            self._remove(target, work)
            if publication.displaced is not None:
                publication.displaced.rename(target)
                sync(target.parent)
            self._drop_warmup(self._warmup(bundle), bundle.model)

    def check_agreement(self, bundle: Bundle, beside: Iterable[int]) -> None:
        """See `Repository.check_agreement`."""
        agreed_config(self, bundle, beside)

    def activate(self, bundle: Bundle, beside: Iterable[int], work: Path) -> Path | None:
        """See `Repository.activate`."""
        with translated(self.root):
            path = self.root / bundle.model / CONFIG
            text = render(agreed_config(self, bundle, beside))
            kept = None
            if path.is_file():
                kept = work / f"config-{uuid.uuid4().hex}"
                copy_file(path, kept)
            if kept is None or text != kept.read_text():
                replace_file(path, text.encode(), work)
            return kept

    def go_back(self, model: str, kept: Path | None) -> None:
        """Undo `activate`; it takes no room on the disk."""
        with translated(self.root):
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
        if version in self.served(model):
            raise ConflictError(
                f"version {version} of '{model}' is served from {self.root}",
                hint="Export or roll back to another version first.",
            )
        with translated(self.root):
            place = self._place(model, version)
            warmup = []
            if (place / MANIFEST).is_file():
                warmup = list(self._warmup(Bundle.open(place, model, version)))
            self._remove(place, work)
            self._drop_warmup(warmup, model)

    def _place(self, model: str, version: int) -> Path:
        return self.root / model / str(version)

    def _manifests(self, model: str) -> Iterable[Path]:
        return (self.root / model).glob(f"*/{MANIFEST}")

    def _warmup(self, bundle: Bundle) -> Iterator[tuple[str, Path]]:
        """The names of a bundle's warm-up files, and where they lie once published."""
        for name in bundle.files:
            if name.startswith(f"{WARMUP}/"):
                yield name, self.root / bundle.model / name

    def _needed(self, name: str, model: str) -> bool:
        """Whether a published version has a file of this name; one that cannot be read might."""
        for path in self._manifests(model):
            version = served_version(path.parent.name)
            try:
                if version is not None and name in Bundle.open(path.parent, model, version).files:
                    return True
            except ValidationFailed:
                return True
        return False

    def _drop_warmup(self, files: Iterable[tuple[str, Path]], model: str) -> None:
        for name, path in files:
            if not self._needed(name, model):
                path.unlink(missing_ok=True)

    def _add_warmup(self, bundle: Bundle) -> None:
        for name, target in self._warmup(bundle):
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
