"""A Triton model repository in a local folder.

A version's directory appears whole, by one rename, and is never overwritten. Which versions are
served is said by the model's config.pbtxt alone, which is replaced in one step.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.bundle import CONFIG, MANIFEST, REPORT, WARMUP, Bundle
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

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["LocalRepository", "lay_out"]

_AGREEING = ("interface", "backend", "filename", "batching")


def lay_out(bundle: Bundle, folder: Path, config: str) -> None:
    """Lay a bundle out as a model directory that serves it, by links to the bundle's files.

    Args:
        bundle: The bundle.
        folder: The model directory to make; its name must be the model's.
        config: The text of its config.pbtxt.
    """
    version = folder / str(bundle.version)
    # What the manifest does not name nobody has proven, and a server runs a .so that it finds.
    for name in (*bundle.files, MANIFEST, REPORT):
        if name != REPORT or (bundle.path / name).is_file():
            copy_file(bundle.path / name, version / name)
    for file in (bundle.path / WARMUP).glob("*"):
        copy_file(file, folder / WARMUP / file.name)
    (folder / CONFIG).write_text(config)


@dataclass(frozen=True, slots=True)
class LocalRepository:
    """The repository below one folder.

    Attributes:
        root: The folder that a server is given as ``--model-repository``.
    """

    root: Path

    def bundle(self, model: str, version: int) -> Bundle | None:
        """Return a published version's bundle, or None where it is not there."""
        path = self.root / model / str(version)
        return Bundle.open(path) if (path / MANIFEST).is_file() else None

    def served(self, model: str) -> tuple[int, ...]:
        """Return the versions that the live config names."""
        config = self._live(model)
        return () if config is None else tuple(config.version_policy.specific.versions)

    def serves(self, bundle: Bundle) -> bool:
        """Whether exactly this bundle lies here, unharmed, and is served."""
        try:
            published = self.bundle(bundle.model, bundle.version)
            if published is None or published.sha256 != bundle.sha256:
                return False
            published.verify()
            served = self.served(bundle.model)
            live = self._live(bundle.model)
            # With another version beside it, the config may be that of the other's bundle.
            bundles = [self.bundle(bundle.model, version) for version in served]
            configs = [self._agreed(other, served) for other in bundles if other is not None]
        except (ConflictError, ValidationFailed):
            return False
        whole = all(
            (self.root / bundle.model / name).is_file()
            for name in bundle.files
            if name.startswith(f"{WARMUP}/")
        )
        return whole and bundle.version in served and live in configs

    def publish(self, bundle: Bundle, staging: Path) -> bool:
        """Put a version's directory in place; the live config does not change.

        A model that is new here arrives with its config in one rename, since it has nothing to
        switch from.

        Args:
            bundle: What to publish.
            staging: A folder on the same filesystem, outside the root.

        Returns:
            Whether anything was put there.

        Raises:
            ConflictError: The version is there, served, and another bundle.
        """
        with translated(self.root):
            target = self.root / bundle.model / str(bundle.version)
            if target.is_dir() and not self._make_way(bundle, target, staging):
                self._add_warmup(bundle)
                return False
            folder = staging / "publish" / bundle.model
            lay_out(bundle, folder, bundle.config)
            open_to_readers(folder)
            durable(folder)
            if (self.root / bundle.model).is_dir():
                try:
                    self._add_warmup(bundle)
                    (folder / str(bundle.version)).rename(target)
                    sync(target.parent)
                except BaseException:
                    self.withdraw(bundle, staging)
                    raise
            else:
                self.root.mkdir(parents=True, exist_ok=True)
                folder.rename(self.root / bundle.model)
                sync(self.root)
            return True

    def activate(self, bundle: Bundle, beside: Iterable[int], staging: Path) -> str | None:
        """Switch the live config to this version and the others that stay.

        Args:
            bundle: The version to serve.
            beside: Other versions that stay served here.
            staging: A folder on the same filesystem, outside the root.

        Returns:
            The config before, to go back to; None where the model was not served.

        Raises:
            ConflictError: A version that stays has another interface.
        """
        with translated(self.root):
            path = self.root / bundle.model / CONFIG
            before = path.read_text() if path.is_file() else None
            text = render(self._agreed(bundle, set(beside)))
            if text != before:
                replace_file(path, text.encode(), staging)
            return before

    def check_agreement(self, bundle: Bundle, beside: Iterable[int]) -> None:
        """Refuse a version that cannot be served beside the others.

        Raises:
            ConflictError: Interfaces, formats or batching differ.
        """
        self._agreed(bundle, set(beside))

    def go_back(self, model: str, config: str | None, staging: Path) -> None:
        """Undo `activate`."""
        with translated(self.root):
            path = self.root / model / CONFIG
            if config is None:
                path.unlink(missing_ok=True)
            else:
                replace_file(path, config.encode(), staging)

    def withdraw(self, bundle: Bundle, staging: Path) -> None:
        """Undo `publish`: take a version that is not served out of the root, then delete it."""
        with translated(self.root):
            folder = self.root / bundle.model
            self._remove(folder / str(bundle.version), staging)
            others = [p for p in folder.glob("*") if served_version(p.name) is not None]
            if folder.is_dir() and not others:
                self._remove(folder, staging)
                return
            try:
                kept = {
                    name
                    for other in others
                    if (other / MANIFEST).is_file()
                    for name in Bundle.open(other).files
                }
            except ValidationFailed:
                return  # whose warm-up files they are, nobody can tell any more
            for name in set(bundle.files) - kept:
                if name.startswith(f"{WARMUP}/"):
                    (folder / name).unlink(missing_ok=True)

    def _make_way(self, bundle: Bundle, target: Path, staging: Path) -> bool:
        """Whether the place is free now; a whole and equal version stays."""
        try:
            published = Bundle.open(target)
            published.verify()
            if published.sha256 == bundle.sha256:
                return False
        except ValidationFailed:
            pass
        if bundle.version in self.served(bundle.model):
            raise ConflictError(
                f"version {bundle.version} of '{bundle.model}' is served from {self.root} with "
                "another bundle, and a published version is never overwritten",
                hint="Register the model as a new version, or export to another --repository.",
            )
        self._remove(target, staging)
        return True

    def _add_warmup(self, bundle: Bundle) -> None:
        for name in bundle.files:
            target = self.root / bundle.model / name
            if name.startswith(f"{WARMUP}/") and not target.exists():
                target.parent.mkdir(exist_ok=True)
                temporary = bundle.path.parent / f"warmup-{uuid.uuid4().hex}"
                shutil.copyfile(bundle.path / name, temporary)
                temporary.chmod(0o644)
                temporary.rename(target)
                sync(target.parent)

    def _remove(self, path: Path, staging: Path) -> None:
        if path.exists():
            away = staging / f"removed-{uuid.uuid4().hex}"
            path.rename(away)
            sync(path.parent)
            shutil.rmtree(away, ignore_errors=True)

    def _live(self, model: str) -> Any:
        path = self.root / model / CONFIG
        if not path.is_file():
            return None
        return parse(path.read_text(), where=str(path))

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
