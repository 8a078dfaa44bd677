"""A Triton model repository: the rules that hold whatever stores it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.bundle import CONFIG, MANIFEST, REPORT, Bundle
from exporter.errors import ConflictError, StlabError, ValidationFailedError
from exporter.repository.model_dir import (
    ModelDir,
    live_config,
    reject_foreign_files,
    served_versions,
    versions_at,
    warmup_files,
)
from exporter.triton.model_config import parse, with_versions

__all__ = ["Publication", "Repository"]

_SHARED = ("interface", "backend", "filename", "batching")


@dataclass(frozen=True, slots=True)
class Publication:
    """What publishing changed, to undo it.

    Attributes:
        is_new_model: Whether the model's directory did not exist before.
        displaced: Where the version's former directory was moved to, or None.
    """

    is_new_model: bool = False
    displaced: Path | None = None


class Repository(ABC):
    """A Triton model repository.

    A version's directory is never overwritten, and the model's config.pbtxt alone decides which
    versions are served. Methods that change something require an open workspace of the model, and
    ``work`` is its folder.
    """

    @abstractmethod
    def workspace(self, model: str) -> AbstractContextManager[Path]:
        """Acquire the lock of a model, and provide an empty folder for temporary files.

        Raises:
            ConflictError: Another exporter holds the lock; the message names it.
            UnavailableError: The disk or the store fails.
        """

    @abstractmethod
    def has_leftovers(self, model: str) -> bool:
        """Whether a command that changes a model was killed, or is running."""

    @abstractmethod
    def ensure_locked(self, model: str) -> None:
        """Check that the lock is still held, before a change that servers or other commands see.

        Raises:
            ConflictError: The lock expired: this process was suspended for too long, and another
                one may be changing the model.
            UnavailableError: The store does not answer.
        """

    @abstractmethod
    def identity(self) -> str:
        """Return the repository's identifier, wherever it is mounted; empty before its first use.

        Aliases may be published to different repositories; this tells which of them are here.
        """

    @abstractmethod
    def model_dir(self, model: str) -> ModelDir:
        """Return a model's directory, which need not exist."""

    def unfinished(self, model: str) -> Collection[int]:  # noqa: ARG002 - a rename is complete
        """Return the versions that may lack their manifest, since an export was interrupted."""
        return ()

    @abstractmethod
    def bundle(self, model: str, version: int) -> Bundle | None:
        """Return a published version's bundle, or None if it is not published.

        Its manifest, config, samples and report are readable. Its files are not compared with the
        manifest; see `verify`.

        Raises:
            ValidationFailedError: The manifest cannot be read, or belongs to another version.
        """

    @abstractmethod
    def fetch(self, bundle: Bundle, folder: Path) -> Bundle:
        """Return a bundle of this repository with all of its files on local disk.

        The files may be downloaded to the folder, which is created.

        Raises:
            ValidationFailedError: A file is missing, or is not the one that was proven.
        """

    @abstractmethod
    def verify(self, bundle: Bundle) -> None:
        """Read every published file of a bundle and compare it with the manifest.

        Raises:
            ValidationFailedError: A file is missing, differs, or is not in the manifest; the
                message names it.
        """

    @abstractmethod
    def publish(self, bundle: Bundle, work: Path) -> Publication | None:
        """Put a version's complete directory in place; the live config does not change.

        A directory of the same bundle that is damaged or incomplete is repaired.

        Returns:
            The argument for `unpublish`; None if there is nothing to undo.

        Raises:
            ConflictError: The version is served with another bundle, or the model's directory
                holds files that stlab did not create.
        """

    @abstractmethod
    def unpublish(self, bundle: Bundle, publication: Publication, work: Path) -> None:
        """Undo `publish`. A version in the live config stays."""

    @abstractmethod
    def activate(self, bundle: Bundle, other_versions: Iterable[int], work: Path) -> Path | None:
        """Switch the live config to this version and the others that stay served.

        Returns:
            A copy of the previous config, for `restore_config`; None if there was none.

        Raises:
            ConflictError: A version that stays has another interface, format or batching.
        """

    @abstractmethod
    def restore_config(self, model: str, previous: Path | None) -> None:
        """Undo `activate`."""

    @abstractmethod
    def delete(self, model: str, version: int, work: Path) -> None:
        """Delete a version, whether it is served or not, and the warm-up files it leaves unused."""

    def remove(self, model: str, version: int, work: Path) -> None:
        """Delete a version that is not served.

        Raises:
            ConflictError: The version is served.
        """
        if version in self.served_versions(model):
            raise ConflictError(
                f"version {version} of '{model}' is served from this repository",
                hint="Export or roll back to another version first.",
            )
        self.delete(model, version, work)

    def clean_up(self, model: str) -> None:
        """Delete what a killed command left, unless another command is running."""
        if self.has_leftovers(model):
            with suppress(StlabError), self.workspace(model):
                pass  # opening it deletes them

    def versions(self, model: str) -> tuple[int, ...]:
        """Return the published versions, in order."""
        return versions_at(self.model_dir(model))

    def served_versions(self, model: str) -> tuple[int, ...]:
        """Return the versions in the live config.

        Raises:
            ValidationFailedError: The config cannot be read.
        """
        return served_versions(self.model_dir(model))

    def possibly_served(self, model: str) -> tuple[int, ...]:
        """Return the versions in the live config; all published ones if it is damaged."""
        try:
            return self.served_versions(model)
        except ValidationFailedError:
            return self.versions(model)

    def is_serving(self, bundle: Bundle) -> bool:
        """Whether exactly this bundle is published, intact and served."""
        model_dir = self.model_dir(bundle.model)
        try:
            reject_foreign_files(model_dir, self.unfinished(bundle.model))
            if self._published_state(bundle) != (True, True):
                return False
            live = live_config(model_dir)
            served = [] if live is None else list(live.version_policy.specific.versions)
            # If other versions are served too, the config may derive from one of their bundles.
            bundles = [self.bundle(bundle.model, version) for version in served]
            configs = [self.merged_config(one, served) for one in bundles if one is not None]
        except (ConflictError, ValidationFailedError):
            return False
        intact = all(model_dir.holds(bundle, name, name) for name in warmup_files(bundle))
        return intact and bundle.version in served and live in configs

    def merged_config(self, bundle: Bundle, other_versions: Iterable[int]) -> Any:
        """Return the config that serves a bundle together with other published versions.

        Raises:
            ConflictError: One of them has another interface, format or batching.
        """
        others = set(other_versions) - {bundle.version}
        for version in sorted(others):
            other = self.bundle(bundle.model, version)
            if other is None:
                others.remove(version)
                continue
            for what in _SHARED:
                if other.manifest.get(what) != bundle.manifest.get(what):
                    raise ConflictError(
                        f"version {version} of '{bundle.model}' is served from the same repository "
                        f"under another alias, and its {what} differs from that of version "
                        f"{bundle.version}; one model directory cannot serve both",
                        hint="Move the other alias first, or give each alias its own --repository.",
                    )
        config = parse(bundle.config, where=f"the config of version {bundle.version}")
        return with_versions(config, others | {bundle.version})

    def _check_publishable(self, bundle: Bundle, model_dir: ModelDir) -> tuple[bool, bool]:
        """Return whether the published version is this bundle, and whether it is intact.

        Raises:
            ConflictError: As in `publish`.
        """
        reject_foreign_files(model_dir, self.unfinished(bundle.model))
        same, intact = self._published_state(bundle)
        same = same or _is_remnant(bundle, model_dir)
        exists = str(bundle.version) in model_dir.entries()
        if exists and not same and bundle.version in self.possibly_served(bundle.model):
            raise ConflictError(
                f"version {bundle.version} of '{bundle.model}' is served from {model_dir} with "
                "another bundle, and a published version is never overwritten",
                hint="Register the model as a new version, or export to another --repository.",
            )
        return same, intact

    def _published_state(self, bundle: Bundle) -> tuple[bool, bool]:
        """Return whether the published version is this bundle, and whether it is intact.

        A published bundle without its passing evidence is not intact.
        """
        try:
            published = self.bundle(bundle.model, bundle.version)
        except ValidationFailedError:
            return False, False
        if published is None or published.sha256 != bundle.sha256:
            return False, False
        try:
            self.verify(bundle)
        except ValidationFailedError:
            return True, False
        proven = (bundle.path / REPORT).is_file()
        return True, not proven or published.passed_report() is not None

    def _unused_warmup(self, model: str, names: Collection[str]) -> Collection[str]:
        """Return the warm-up files of a model that no published version needs.

        A version that cannot be read may need any of them, and so may the live config.
        """
        needed: set[str] = set()
        try:
            for version in self.versions(model) if names else ():
                bundle = self.bundle(model, version)
                needed |= set(() if bundle is None else bundle.files)
        except ValidationFailedError:
            return ()
        config = (self.model_dir(model).read(CONFIG) or b"").decode(errors="replace")
        return [n for n in names if n not in needed and n.rpartition("/")[2] not in config]


def _is_remnant(bundle: Bundle, model_dir: ModelDir) -> bool:
    """Whether a version in a model's directory is a truncated copy of this local bundle.

    A truncated manifest does not identify the bundle; the files do.
    """
    names = {name: f"{bundle.version}/{name}" for name in (MANIFEST, *bundle.files)}
    return model_dir.has(names[MANIFEST]) and all(
        model_dir.begins(bundle, name, at) for name, at in names.items() if model_dir.has(at)
    )
