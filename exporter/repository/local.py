"""A Triton model repository in a local folder.

A version's directory appears whole, by one rename, and is never overwritten. Which versions are
served is said by the model's config.pbtxt alone, which is replaced in one step.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.bundle import CONFIG, MANIFEST, WARMUP, Bundle
from exporter.config import parse, render, with_versions
from exporter.errors import ConflictError, ValidationFailed
from exporter.names import served_version
from exporter.repository.files import (
    copy_file,
    durable,
    open_to_readers,
    replace_file,
    sync,
    translated,
)
from exporter.repository.layout import check_ours, lay_out, lies_at, live_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["LocalRepository", "Publication"]

_AGREEING = ("interface", "backend", "filename", "batching")


@dataclass(frozen=True, slots=True)
class Publication:
    """What publishing changed, to undo it.

    Attributes:
        fresh: Whether the model's directory was not there before.
        displaced: Where what lay in the version's place lies now, or None.
    """

    fresh: bool = False
    displaced: Path | None = None


@dataclass(frozen=True, slots=True)
class LocalRepository:
    """The repository below one folder.

    Attributes:
        root: The folder that a server is given as ``--model-repository``.
    """

    root: Path

    def bundle(self, model: str, version: int) -> Bundle | None:
        """Return a published version's bundle, or None where it is not there."""
        path = self._place(model, version)
        return Bundle.open(path, model, version) if (path / MANIFEST).is_file() else None

    def served(self, model: str) -> tuple[int, ...]:
        """Return the versions that the live config names."""
        config = live_config(self.root / model)
        return () if config is None else tuple(config.version_policy.specific.versions)

    def serves(self, bundle: Bundle) -> bool:
        """Whether exactly this bundle lies here, unharmed, and is served."""
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
            configs = [self._agreed(other, served) for other in bundles if other is not None]
        except (ConflictError, ValidationFailed):
            return False
        whole = all(bundle.holds(name, path) for name, path in self._warmup(bundle))
        return whole and bundle.version in served and live in configs

    def publish(self, bundle: Bundle, staging: Path) -> Publication | None:
        """Put a version's directory in place; the live config does not change.

        A model that is new here arrives with its config in one rename, since it has nothing to
        switch from. A directory that is this bundle's, but damaged, is replaced by a whole one.

        Args:
            bundle: What to publish.
            staging: A folder on the same filesystem, outside the root.

        Returns:
            What to give to `withdraw`; None where there is nothing to undo.

        Raises:
            ConflictError: The version is there, served, and another bundle; or the model's
                directory holds what no export put there.
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
            folder = staging / "publish" / bundle.model
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
            publication = Publication(displaced=self._set_aside(target, staging))
            try:
                self._add_warmup(bundle)
                (folder / target.name).rename(target)
                sync(target.parent)
            except BaseException:
                self.withdraw(bundle, publication, staging)
                raise
            return None if ours else publication

    def withdraw(self, bundle: Bundle, publication: Publication, staging: Path) -> None:
        """Undo `publish`: take a version out of the root, then delete it.

        A version that the live config names stays: without it the server would have nothing.
        """
        with translated(self.root):
            target = self._place(bundle.model, bundle.version)
            if publication.fresh:
                self._remove(target.parent, staging)
                return
            if bundle.version in self.served(bundle.model):
                return
            self._remove(target, staging)
            if publication.displaced is not None:
                publication.displaced.rename(target)
                sync(target.parent)
            for name, path in self._warmup(bundle):
                if not self._needed(name, bundle.model):
                    path.unlink(missing_ok=True)

    def check_agreement(self, bundle: Bundle, beside: Iterable[int]) -> None:
        """Refuse a version that cannot be served beside the others.

        Raises:
            ConflictError: Interfaces, formats or batching differ.
        """
        self._agreed(bundle, set(beside))

    def activate(self, bundle: Bundle, beside: Iterable[int], staging: Path) -> Path | None:
        """Switch the live config to this version and the others that stay.

        Args:
            bundle: The version to serve.
            beside: Other versions that stay served here.
            staging: A folder on the same filesystem, outside the root.

        Returns:
            Where the config before is kept, to go back to; None where the model was not served.

        Raises:
            ConflictError: A version that stays has another interface.
        """
        with translated(self.root):
            path = self.root / bundle.model / CONFIG
            text = render(self._agreed(bundle, set(beside)))
            kept = None
            if path.is_file():
                kept = staging / f"config-{uuid.uuid4().hex}"
                copy_file(path, kept)
            if kept is None or text != kept.read_text():
                replace_file(path, text.encode(), staging)
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

    def _place(self, model: str, version: int) -> Path:
        return self.root / model / str(version)

    def _warmup(self, bundle: Bundle) -> Iterator[tuple[str, Path]]:
        """The names of a bundle's warm-up files, and where they lie once published."""
        for name in bundle.files:
            if name.startswith(f"{WARMUP}/"):
                yield name, self.root / bundle.model / name

    def _needed(self, name: str, model: str) -> bool:
        """Whether a published version has a file of this name; one that cannot be read might."""
        for path in (self.root / model).glob(f"*/{MANIFEST}"):
            version = served_version(path.parent.name)
            try:
                if version is not None and name in Bundle.open(path.parent, model, version).files:
                    return True
            except ValidationFailed:
                return True
        return False

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

    def _set_aside(self, path: Path, staging: Path) -> Path | None:
        """Move something out of the root, if it is there, and return where it lies now."""
        if not path.exists():
            return None
        away = staging / f"removed-{uuid.uuid4().hex}"
        path.rename(away)
        sync(path.parent)
        return away

    def _remove(self, path: Path, staging: Path) -> None:
        away = self._set_aside(path, staging)
        if away is not None:
            shutil.rmtree(away, ignore_errors=True)

    def _agreed(self, bundle: Bundle, beside: Iterable[int]) -> Any:
        beside = set(beside)
        for version in sorted(beside - {bundle.version}):
            other = self.bundle(bundle.model, version)
            if other is None:
                beside = beside - {version}
                continue
            for what in _AGREEING:
                if other.manifest[what] != bundle.manifest[what]:
                    raise ConflictError(
                        f"version {version} of '{bundle.model}' is served from the same repository "
                        f"under another alias, and its {what} is not that of version "
                        f"{bundle.version}; one model directory cannot serve both",
                        hint="Move the other alias first, or give each alias a --repository.",
                    )
        config = parse(bundle.config, where=f"the config of version {bundle.version}")
        return with_versions(config, beside | {bundle.version})
