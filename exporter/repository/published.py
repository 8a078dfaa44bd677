"""What is known of published bundles in every repository, wherever it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.bundle import CONFIG, MANIFEST, REPORT
from exporter.errors import ConflictError, ValidationFailedError
from exporter.repository.base import merged_config
from exporter.repository.model_dir import live_config, reject_foreign_files, warmup_files

if TYPE_CHECKING:
    from collections.abc import Collection

    from exporter.bundle import Bundle
    from exporter.repository.base import Repository
    from exporter.repository.model_dir import ModelDir

__all__ = [
    "check_not_served",
    "check_replaceable",
    "is_remnant",
    "is_served",
    "possibly_served",
    "published_state",
    "unused_warmup_files",
]


def published_state(repository: Repository, bundle: Bundle) -> tuple[bool, bool]:
    """Return whether a version that is published is this bundle, and whether it is whole.

    Without the evidence that it passed, it is not.
    """
    try:
        published = repository.bundle(bundle.model, bundle.version)
    except ValidationFailedError:
        return False, False
    if published is None or published.sha256 != bundle.sha256:
        return False, False
    try:
        repository.verify(bundle)
    except ValidationFailedError:
        return True, False
    proven = (bundle.path / REPORT).is_file()
    return True, not proven or published.passed_report() is not None


def is_remnant(bundle: Bundle, place: ModelDir) -> bool:
    """Whether a version in a model's directory is what damage left of this bundle.

    A manifest that is cut short does not say whose it is; the files do.

    Args:
        bundle: A bundle with all of its files at hand.
        place: The model's directory.
    """
    names = {name: f"{bundle.version}/{name}" for name in (MANIFEST, *bundle.files)}
    return place.has(names[MANIFEST]) and all(
        place.begins(bundle, name, at) for name, at in names.items() if place.has(at)
    )


def possibly_served(repository: Repository, model: str) -> tuple[int, ...]:
    """Return the versions that the live config names; all published ones where it is damaged."""
    try:
        return repository.served_versions(model)
    except ValidationFailedError:
        return repository.versions(model)


def is_served(
    repository: Repository, bundle: Bundle, place: ModelDir, unfinished: Collection[int] = ()
) -> bool:
    """Whether exactly this bundle lies in a model's directory, unharmed, and is served.

    Args:
        repository: The repository.
        bundle: The bundle.
        place: The model's directory in it.
        unfinished: See `exporter.repository.model_dir.reject_foreign_files`.
    """
    try:
        reject_foreign_files(place, unfinished)
        if published_state(repository, bundle) != (True, True):
            return False
        live = live_config(place)
        served = [] if live is None else list(live.version_policy.specific.versions)
        # With another version beside it, the config may be that of the other's bundle.
        bundles = [repository.bundle(bundle.model, version) for version in served]
        configs = [merged_config(repository, one, served) for one in bundles if one is not None]
    except (ConflictError, ValidationFailedError):
        return False
    whole = all(place.holds(bundle, name, name) for name in warmup_files(bundle))
    return whole and bundle.version in served and live in configs


def check_replaceable(repository: Repository, bundle: Bundle, place: ModelDir) -> None:
    """Refuse to put a bundle in place of another one that is served.

    Raises:
        ConflictError: It is.
    """
    if bundle.version in possibly_served(repository, bundle.model):
        raise ConflictError(
            f"version {bundle.version} of '{bundle.model}' is served from {place} with another "
            "bundle, and a published version is never overwritten",
            hint="Register the model as a new version, or export to another --repository.",
        )


def check_not_served(repository: Repository, model: str, version: int) -> None:
    """Refuse to delete a version that is served.

    Raises:
        ConflictError: It is.
    """
    if version in repository.served_versions(model):
        raise ConflictError(
            f"version {version} of '{model}' is served from this repository",
            hint="Export or roll back to another version first.",
        )


def unused_warmup_files(
    repository: Repository, model: str, place: ModelDir, names: Collection[str]
) -> Collection[str]:
    """Return which of a model's warm-up files belong to no published version.

    A version that cannot be read might need any of them, and so might the live config.
    """
    needed: set[str] = set()
    try:
        for version in repository.versions(model) if names else ():
            bundle = repository.bundle(model, version)
            needed |= set(() if bundle is None else bundle.files)
    except ValidationFailedError:
        return ()
    config = (place.read(CONFIG) or b"").decode(errors="replace")
    return [n for n in names if n not in needed and n.rpartition("/")[2] not in config]
