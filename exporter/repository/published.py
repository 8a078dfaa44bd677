"""Checks of published bundles that all repositories share."""

from __future__ import annotations

from collections.abc import Collection

from exporter.bundle import CONFIG, MANIFEST, REPORT, Bundle
from exporter.errors import ConflictError, ValidationFailedError
from exporter.repository.base import Repository, merged_config
from exporter.repository.model_dir import ModelDir, live_config, reject_foreign_files, warmup_files

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
    """Return whether the published version is this bundle, and whether it is intact.

    A published bundle without its passing evidence is not intact.
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


def is_remnant(bundle: Bundle, model_dir: ModelDir) -> bool:
    """Whether a version in a model's directory is a truncated copy of this bundle.

    A truncated manifest does not identify the bundle; the files do.

    Args:
        bundle: A bundle with all of its files on local disk.
        model_dir: The model's directory.
    """
    names = {name: f"{bundle.version}/{name}" for name in (MANIFEST, *bundle.files)}
    return model_dir.has(names[MANIFEST]) and all(
        model_dir.begins(bundle, name, at) for name, at in names.items() if model_dir.has(at)
    )


def possibly_served(repository: Repository, model: str) -> tuple[int, ...]:
    """Return the versions in the live config; all published ones if it is damaged."""
    try:
        return repository.served_versions(model)
    except ValidationFailedError:
        return repository.versions(model)


def is_served(
    repository: Repository, bundle: Bundle, model_dir: ModelDir, unfinished: Collection[int] = ()
) -> bool:
    """Whether exactly this bundle is in a model's directory, intact and served.

    Args:
        repository: The repository.
        bundle: The bundle.
        model_dir: The model's directory.
        unfinished: See `exporter.repository.model_dir.reject_foreign_files`.
    """
    try:
        reject_foreign_files(model_dir, unfinished)
        if published_state(repository, bundle) != (True, True):
            return False
        live = live_config(model_dir)
        served = [] if live is None else list(live.version_policy.specific.versions)
        # If other versions are served as well, the config may derive from one of their bundles.
        bundles = [repository.bundle(bundle.model, version) for version in served]
        configs = [merged_config(repository, one, served) for one in bundles if one is not None]
    except (ConflictError, ValidationFailedError):
        return False
    intact = all(model_dir.holds(bundle, name, name) for name in warmup_files(bundle))
    return intact and bundle.version in served and live in configs


def check_replaceable(repository: Repository, bundle: Bundle, model_dir: ModelDir) -> None:
    """Check that the version is not served with another bundle.

    Raises:
        ConflictError: It is served.
    """
    if bundle.version in possibly_served(repository, bundle.model):
        raise ConflictError(
            f"version {bundle.version} of '{bundle.model}' is served from {model_dir} with another "
            "bundle, and a published version is never overwritten",
            hint="Register the model as a new version, or export to another --repository.",
        )


def check_not_served(repository: Repository, model: str, version: int) -> None:
    """Check that a version to delete is not served.

    Raises:
        ConflictError: It is served.
    """
    if version in repository.served_versions(model):
        raise ConflictError(
            f"version {version} of '{model}' is served from this repository",
            hint="Export or roll back to another version first.",
        )


def unused_warmup_files(
    repository: Repository, model: str, model_dir: ModelDir, names: Collection[str]
) -> Collection[str]:
    """Return the warm-up files of a model that no published version needs.

    A version that cannot be read may need any of them, and so may the live config.
    """
    needed: set[str] = set()
    try:
        for version in repository.versions(model) if names else ():
            bundle = repository.bundle(model, version)
            needed |= set(() if bundle is None else bundle.files)
    except ValidationFailedError:
        return ()
    config = (model_dir.read(CONFIG) or b"").decode(errors="replace")
    return [n for n in names if n not in needed and n.rpartition("/")[2] not in config]
