"""What every Triton model repository can do, wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from exporter.errors import ConflictError
from exporter.triton.model_config import parse, with_versions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from exporter.bundle import Bundle

__all__ = ["Publication", "Repository", "merged_config"]

_AGREEING = ("interface", "backend", "filename", "batching")


@dataclass(frozen=True, slots=True)
class Publication:
    """What publishing changed, to undo it.

    Attributes:
        is_new_model: Whether the model's directory was not there before.
        displaced: Where what lay in the version's place lies now, or None.
    """

    is_new_model: bool = False
    displaced: Path | None = None


class Repository(Protocol):
    """A Triton model repository.

    A version's directory is never overwritten, and which versions are served is said by the
    model's config.pbtxt alone. Whatever changes something is called while the model's workspace is
    open.
    """

    def workspace(self, model: str) -> AbstractContextManager[Path]:
        """Take the lock of a model, and lend an empty folder to prepare things in.

        Raises:
            ConflictError: Another exporter works on the model; it is named.
            UnavailableError: The disk or the store fails.
        """

    def clean_up(self, model: str) -> None:
        """Delete what a killed command prepared and nobody needs, unless somebody is at work."""

    def ensure_locked(self, model: str) -> None:
        """Make sure, just before something is moved that others see, that the lock is still ours.

        Raises:
            ConflictError: It was lost: this process stood still for so long that others may work
                on the model by now.
            UnavailableError: The store does not say.
        """

    def identity(self) -> str:
        """Return what this repository is called wherever it is mounted; empty before its first use.

        Aliases may be kept in a repository each, and only those that are kept here are served here.
        """

    def versions(self, model: str) -> tuple[int, ...]:
        """Return the versions that are published, in order."""

    def bundle(self, model: str, version: int) -> Bundle | None:
        """Return a published version's bundle, or None where it is not there.

        Its manifest, config, samples and report can be read from it at once. Whether its files are
        those of the manifest is for `verify` to say.

        Raises:
            ValidationFailedError: Its manifest cannot be read, or is about another version.
        """

    def fetch(self, bundle: Bundle, folder: Path) -> Bundle:
        """Return a bundle of this repository with all of its files at hand.

        Args:
            bundle: What `bundle` returned.
            folder: Where they may be put; it need not be there.

        Raises:
            ValidationFailedError: A file is missing, or is not the one that was proven.
        """

    def verify(self, bundle: Bundle) -> None:
        """Read every file that is published of a bundle of this repository.

        Raises:
            ValidationFailedError: A file is missing, differs, or was never proven; it is named.
        """

    def served_versions(self, model: str) -> tuple[int, ...]:
        """Return the versions that the live config names.

        Raises:
            ValidationFailedError: The config cannot be read.
        """

    def is_serving(self, bundle: Bundle) -> bool:
        """Whether exactly this bundle lies here, unharmed, and is served."""

    def publish(self, bundle: Bundle, work: Path) -> Publication | None:
        """Put a version's directory in place, whole; the live config does not change.

        A directory that is this bundle's, but damaged or half-written, becomes a whole one.

        Args:
            bundle: What to publish.
            work: The folder that `workspace` lent.

        Returns:
            What to give to `withdraw`; None where there is nothing to undo.

        Raises:
            ConflictError: The version is there, served, and another bundle; or the model's
                directory holds what no export put there.
        """

    def unpublish(self, bundle: Bundle, publication: Publication, work: Path) -> None:
        """Undo `publish`. A version that the live config names stays."""

    def check_compatible(self, bundle: Bundle, beside: Iterable[int]) -> None:
        """Refuse a version that cannot be served beside the others.

        Raises:
            ConflictError: Interfaces, formats or batching differ.
        """

    def activate(self, bundle: Bundle, beside: Iterable[int], work: Path) -> Path | None:
        """Switch the live config to this version and the others that stay.

        Args:
            bundle: The version to serve.
            beside: Other versions that stay served here.
            work: The folder that `workspace` lent.

        Returns:
            Where the config before is kept, to go back to; None where the model was not served.

        Raises:
            ConflictError: A version that stays has another interface.
        """

    def restore_config(self, model: str, kept: Path | None) -> None:
        """Undo `activate`."""

    def remove(self, model: str, version: int, work: Path) -> None:
        """Delete a version that is not served; what goes at once is its name, the bytes later.

        Raises:
            ConflictError: It is served.
        """


def merged_config(repository: Repository, bundle: Bundle, beside: Iterable[int]) -> Any:
    """Return the config that serves a bundle together with versions published beside it.

    Raises:
        ConflictError: One of them has another interface, format or batching.
    """
    staying = set(beside) - {bundle.version}
    for version in sorted(staying):
        other = repository.bundle(bundle.model, version)
        if other is None:
            staying.remove(version)
            continue
        for what in _AGREEING:
            if other.manifest.get(what) != bundle.manifest.get(what):
                raise ConflictError(
                    f"version {version} of '{bundle.model}' is served from the same repository "
                    f"under another alias, and its {what} is not that of version "
                    f"{bundle.version}; one model directory cannot serve both",
                    hint="Move the other alias first, or give each alias a --repository.",
                )
    config = parse(bundle.config, where=f"the config of version {bundle.version}")
    return with_versions(config, staying | {bundle.version})
