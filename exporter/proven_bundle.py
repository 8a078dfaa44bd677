"""Find the bundle of an earlier export, with its passing evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.bounded_text import reading
from exporter.bundle import REPORT, Bundle
from exporter.errors import ConflictError, NotFoundError, ValidationFailedError
from exporter.parity.evidence import parity_summary
from exporter.registry import Registry, fetch_bundle, promotion
from exporter.registry.version_tags import has_passed

if TYPE_CHECKING:
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
    """A bundle with the summary of its passing evidence, and where the registry stores it.

    It is reused if an earlier export built it.
    """

    bundle: Bundle
    parity: Mapping[str, Any]
    uri: str
    reused: bool


class BundleRef(NamedTuple):
    """A proven bundle in a version's tags: its digest, and where the registry stores it."""

    sha256: str
    uri: str


def recorded_bundle(tags: Mapping[str, str], alias: str) -> BundleRef | None:
    """Return the bundle of a version that was promoted to an alias, if its evidence passed.

    This may not be the newest bundle of the version, which may have been exported again since.
    """
    record = promotion(tags, alias) if has_passed(tags) else None
    return None if record is None else BundleRef(record.bundle, record.uri)


def bundle_for_alias(registry: Registry, model: str, alias: str) -> tuple[int, BundleRef]:
    """Return the version that an alias points to, and its bundle.

    Raises:
        NotFoundError: The model does not exist, or the alias points to no version.
        ConflictError: The version has no passing evidence for the alias; the kind is ``evidence``.
        UnavailableError: The registry does not answer.
    """
    aliases, versions = registry.get_model(model)
    version = aliases.get(alias)
    if version is None:
        raise NotFoundError(
            f"'{alias}' of '{model}' points to no version",
            hint=f"Export one: stlab-export {model} --alias {alias}",
        )
    recorded = recorded_bundle(versions.get(version, {}), alias)
    if recorded is None:
        raise ConflictError(
            f"version {version} of '{model}' has no passing evidence for '{alias}'",
            hint=f"Find the fix with: stlab status {model}",
            kind="evidence",
        )
    return version, recorded


def load_passed(bundle: Bundle, uri: str) -> ProvenBundle:
    """Return a bundle with the evidence of its ``report.json``.

    Raises:
        ValidationFailedError: The evidence is missing, of another bundle, or did not pass.
    """
    what = f"the {REPORT} of version {bundle.version}"
    hint = f"Prove it again: stlab-export {bundle.model} --alias staging"
    report = bundle.passed_report()
    if report is None:
        raise ValidationFailedError(
            f"{what} holds no passing evidence for its bundle {bundle.sha256[:12]}",
            hint=hint,
            kind="bundle",
        )
    with reading(what, hint=hint, kind="bundle"):
        return ProvenBundle(bundle, parity_summary(report["parity"]), uri, reused=True)


def find_published(
    repository: Repository, model: str, version: int, recorded: BundleRef
) -> ProvenBundle | None:
    """Return a bundle from a repository, if it is published there and intact.

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
    """Download a bundle with its evidence, and check every file.

    Raises:
        NotFoundError: The bundle is gone.
        ConflictError: The files are not those that were proven; the kind is ``bundle``.
        UnavailableError: The registry or the artifact store does not answer.
    """
    try:
        bundle = fetch_bundle(
            registry, model, version, uri=recorded.uri, sha256=recorded.sha256, folder=folder
        )
        return load_passed(bundle, recorded.uri)
    except ValidationFailedError as error:
        raise ConflictError(error.message, hint=error.hint, kind="bundle") from error
