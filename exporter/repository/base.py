"""The interface of a Triton model repository, whatever stores it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from exporter.bundle import Bundle
from exporter.errors import ConflictError
from exporter.triton.model_config import parse, with_versions

__all__ = ["Publication", "Repository", "check_compatible", "merged_config"]

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


class Repository(Protocol):
    """A Triton model repository.

    A version's directory is never overwritten, and the model's config.pbtxt alone decides which
    versions are served. Methods that change something require an open workspace of the model.
    """

    def workspace(self, model: str) -> AbstractContextManager[Path]:
        """Acquire the lock of a model, and provide an empty folder for temporary files.

        Raises:
            ConflictError: Another exporter holds the lock; the message names it.
            UnavailableError: The disk or the store fails.
        """

    def clean_up(self, model: str) -> None:
        """Delete what a killed command left, unless another command is running."""

    def ensure_locked(self, model: str) -> None:
        """Check that the lock is still held, before a change that servers or other commands see.

        Raises:
            ConflictError: The lock expired: this process was suspended for too long, and another
                one may be changing the model.
            UnavailableError: The store does not answer.
        """

    def identity(self) -> str:
        """Return the repository's identifier, wherever it is mounted; empty before its first use.

        Aliases may be published to different repositories; this tells which of them are here.
        """

    def versions(self, model: str) -> tuple[int, ...]:
        """Return the published versions, in order."""

    def bundle(self, model: str, version: int) -> Bundle | None:
        """Return a published version's bundle, or None if it is not published.

        Its manifest, config, samples and report are readable. Its files are not compared with the
        manifest; see `verify`.

        Raises:
            ValidationFailedError: The manifest cannot be read, or belongs to another version.
        """

    def fetch(self, bundle: Bundle, folder: Path) -> Bundle:
        """Return a bundle of this repository with all of its files on local disk.

        Args:
            bundle: A bundle from `bundle`.
            folder: Where files may be downloaded to; created if it does not exist.

        Raises:
            ValidationFailedError: A file is missing, or is not the one that was proven.
        """

    def verify(self, bundle: Bundle) -> None:
        """Read every published file of a bundle and compare it with the manifest.

        Raises:
            ValidationFailedError: A file is missing, differs, or is not in the manifest; the
                message names it.
        """

    def served_versions(self, model: str) -> tuple[int, ...]:
        """Return the versions in the live config.

        Raises:
            ValidationFailedError: The config cannot be read.
        """

    def is_serving(self, bundle: Bundle) -> bool:
        """Whether exactly this bundle is published, intact and served."""

    def publish(self, bundle: Bundle, work: Path) -> Publication | None:
        """Put a version's complete directory in place; the live config does not change.

        A directory of the same bundle that is damaged or incomplete is repaired.

        Args:
            bundle: The bundle.
            work: The folder from `workspace`.

        Returns:
            The argument for `unpublish`; None if there is nothing to undo.

        Raises:
            ConflictError: The version is served with another bundle, or the model's directory
                holds files that stlab did not create.
        """

    def unpublish(self, bundle: Bundle, publication: Publication, work: Path) -> None:
        """Undo `publish`. A version in the live config stays."""

    def activate(self, bundle: Bundle, other_versions: Iterable[int], work: Path) -> Path | None:
        """Switch the live config to this version and the others that stay served.

        Args:
            bundle: The version to serve.
            other_versions: Other versions that stay served here.
            work: The folder from `workspace`.

        Returns:
            A copy of the previous config, for `restore_config`; None if there was none.

        Raises:
            ConflictError: A version that stays has another interface, format or batching.
        """

    def restore_config(self, model: str, previous: Path | None) -> None:
        """Undo `activate`."""

    def remove(self, model: str, version: int, work: Path) -> None:
        """Delete a version that is not served.

        Raises:
            ConflictError: The version is served.
        """


def check_compatible(repository: Repository, bundle: Bundle, other_versions: Iterable[int]) -> None:
    """Reject a version that cannot be served together with the others.

    Raises:
        ConflictError: Interfaces, formats or batching differ.
    """
    merged_config(repository, bundle, other_versions)


def merged_config(repository: Repository, bundle: Bundle, other_versions: Iterable[int]) -> Any:
    """Return the config that serves a bundle together with other published versions.

    Raises:
        ConflictError: One of them has another interface, format or batching.
    """
    others = set(other_versions) - {bundle.version}
    for version in sorted(others):
        other = repository.bundle(bundle.model, version)
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
