"""A bundle with passed evidence, and where one is found that an earlier export made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.bundle import REPORT
from exporter.errors import ConflictError, NotFoundError, ValidationFailedError
from exporter.parity.evidence import in_short
from exporter.registry import fetch_bundle, promotion
from exporter.registry.version_tags import has_passed
from exporter.untrusted import reading

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.bundle import Bundle
    from exporter.registry import Registry
    from exporter.repository import Repository

__all__ = [
    "BundleRef",
    "ProvenBundle",
    "bundle_for_alias",
    "fetch_proven",
    "find_published",
    "load_passed",
    "recorded_bundle",
]


@dataclass(frozen=True, slots=True)
class ProvenBundle:
    """A bundle with passed evidence.

    Attributes:
        bundle: The bundle.
        parity: Its evidence in short.
        uri: Where the registry keeps it.
        reused: Whether an earlier export made it.
    """

    bundle: Bundle
    parity: Mapping[str, Any]
    uri: str
    reused: bool


@dataclass(frozen=True, slots=True)
class BundleRef:
    """The bundle that a version's tags name as proven.

    Attributes:
        sha256: Its digest.
        uri: Where the registry keeps it.
    """

    sha256: str
    uri: str


def recorded_bundle(tags: Mapping[str, str], alias: str) -> BundleRef | None:
    """Return the bundle that an alias took of a version, if its evidence passed.

    Not the one that the version's other tags name: it may have been exported again since.
    """
    taken = promotion(tags, alias) if has_passed(tags) else None
    return None if taken is None else BundleRef(taken.bundle, taken.uri)


def bundle_for_alias(registry: Registry, model: str, alias: str) -> tuple[int, BundleRef]:
    """Return the version that an alias names, and the bundle that it took of it.

    Raises:
        NotFoundError: There is no such model, or the alias names no version.
        ConflictError: The version was not proven for the alias.
        UnavailableError: The registry does not answer.
    """
    aliases, versions = registry.get_model(model)
    version = aliases.get(alias)
    if version is None:
        raise NotFoundError(
            f"'{alias}' of '{model}' names no version",
            hint=f"Export one: stlab-export {model} --alias {alias}",
        )
    recorded = recorded_bundle(versions.get(version, {}), alias)
    if recorded is None:
        raise ConflictError(
            f"nothing says that version {version} of '{model}' was proven for '{alias}'",
            hint=f"See what to do with: stlab status {model}",
            kind="evidence",
        )
    return version, recorded


def load_passed(bundle: Bundle, uri: str) -> ProvenBundle:
    """Return a bundle with the evidence that lies with it.

    Raises:
        ValidationFailedError: There is none for these bytes, or it did not pass.
    """
    report = bundle.passed_report()
    if report is None:
        raise ValidationFailedError(
            f"the {REPORT} of version {bundle.version} does not say that its bundle "
            f"{bundle.sha256[:12]} passed",
            hint=f"Prove it again: stlab-export {bundle.model} --alias staging",
            kind="bundle",
        )
    with reading(
        f"the {REPORT} of version {bundle.version}",
        hint=f"Prove it again: stlab-export {bundle.model} --alias staging",
        kind="bundle",
    ):
        return ProvenBundle(bundle, in_short(report["parity"]), uri, reused=True)


def find_published(
    repository: Repository, model: str, version: int, recorded: BundleRef
) -> ProvenBundle | None:
    """Return the bundle that an alias took, as a repository keeps it, if it does, whole.

    Raises:
        UnavailableError: The repository does not answer.
    """
    try:
        bundle = repository.bundle(model, version)
        if bundle is None or bundle.sha256 != recorded.sha256:
            return None
        repository.verify(bundle)
        return load_passed(bundle, recorded.uri)
    except ValidationFailedError:
        return None


def fetch_proven(
    registry: Registry, model: str, version: int, recorded: BundleRef, folder: Path
) -> ProvenBundle:
    """Download a bundle, every file of it checked, with the evidence that it passed.

    Raises:
        NotFoundError: It is gone.
        ConflictError: What is there is not what was proven; its kind is ``bundle``.
        UnavailableError: The registry or the artifact store went away.
    """
    try:
        bundle = fetch_bundle(
            registry, model, version, uri=recorded.uri, sha256=recorded.sha256, folder=folder
        )
        return load_passed(bundle, recorded.uri)
    except ValidationFailedError as error:
        raise ConflictError(error.message, hint=error.hint, kind="bundle") from error
