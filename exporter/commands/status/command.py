"""Looks at what the registry, the repository and the servers say of models, and compares it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.bundle import REPORT
from exporter.commands.status.drift import alias_drift, model_drift
from exporter.commands.status.fixes import FixCommands
from exporter.commands.status.result import AliasState, ModelState, StatusResult
from exporter.commands.status.snapshot import ModelSnapshot, Published, aliases_elsewhere, record_of
from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UsageError,
    ValidationFailedError,
)
from exporter.names import (
    ALIAS_ORDER,
    ARCHIVED,
    DEFAULT_REPOSITORY,
    DEFAULT_TRACKING_URI,
    model_name,
    served_version,
)
from exporter.proven_bundle import recorded_bundle
from exporter.registry import Registry
from exporter.registry.version_tags import BundleTags
from exporter.repository import open_repository
from exporter.triton.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from exporter.bundle import Bundle
    from exporter.commands.status.drift import Drift
    from exporter.repository import Repository

__all__ = ["StatusRequest", "status"]

_TOUCHED = "stlab."


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """What to look at.

    Attributes:
        model: The registered model; None for every one that was ever exported.
        aliases: The aliases to look at; none for all.
        repository: The model repository.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of servers.
        check: Whether drift is a failure.
        quick: Whether to leave the files of published bundles unread.
    """

    model: str | None = None
    aliases: tuple[str, ...] = ()
    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI
    triton_urls: tuple[str, ...] = ()
    check: bool = False
    quick: bool = False

    def __post_init__(self) -> None:
        if self.model is not None:
            model_name(self.model)
        for alias in self.aliases:
            if alias not in ALIAS_ORDER:
                raise NotFoundError(
                    f"there is no alias {alias!r} to look at; there are: {', '.join(ALIAS_ORDER)}",
                    hint="Choose one of them with --alias.",
                )


def status(request: StatusRequest) -> StatusResult:
    """Look at models; what could not be looked at is in the result, beside what could."""
    result = StatusResult(request.repository)
    try:
        servers, error = _servers(request.triton_urls)
        registry = Registry.connect(request.tracking_uri)
        repository = open_repository(request.repository)
        for model, aliases, versions in _models(registry, request.model):
            seen = _look(request, repository, ModelSnapshot(model, aliases, versions), servers)
            result = replace(result, models=(*result.models, _judge(request, seen)))
    except StlabError as failure:
        error = failure
    if error is not None:
        return result.failed(error)
    drifted = request.check and result.status == "drift"
    return replace(result, exit_code=ConflictError.exit_code) if drifted else result


_Ready = dict[str, frozenset[tuple[str, str]] | None]


def _servers(urls: tuple[str, ...]) -> tuple[_Ready, StlabError | None]:
    """Return every version that each server has ready, and why one that is silent is."""
    found: _Ready = {}
    silent = None
    for url in urls:
        try:
            with connect(url) as client:
                index = client.repository.index(ready=True)
                found[url] = frozenset((entry.name, entry.version) for entry in index)
        except UsageError:
            raise
        except StlabError as error:
            found[url], silent = None, silent or error
    return found, silent


def _models(
    registry: Registry, model: str | None
) -> Iterator[tuple[str, Mapping[str, int], Mapping[int, Mapping[str, str]]]]:
    if model is not None:
        yield (model, *registry.get_model(model))
        return
    for name in registry.models():
        try:
            model_name(name)
            aliases, versions = registry.get_model(name)
        except (UsageError, NotFoundError):
            continue  # it cannot be exported, or has no versions
        tagged = any(key.startswith(_TOUCHED) for tags in versions.values() for key in tags)
        if tagged or set(ALIAS_ORDER) & set(aliases):
            yield name, aliases, versions


def _look(
    request: StatusRequest, repository: Repository, seen: ModelSnapshot, servers: _Ready
) -> ModelSnapshot:
    """Look at the repository, and pick what concerns the model from what the servers said."""
    model, asked = (
        seen.model,
        tuple(a for a in ALIAS_ORDER if a in (request.aliases or ALIAS_ORDER)),
    )
    ready = {
        url: index if index is None else frozenset(_versions_of(model, index))
        for url, index in servers.items()
    }
    seen = replace(seen, asked=asked, here=repository.identity(), ready=ready)
    try:
        seen = replace(seen, in_config=repository.served_versions(model))
    except ValidationFailedError as error:
        seen = replace(seen, config_damage=error.message)
    elsewhere = aliases_elsewhere(seen)
    wanted = {v for a, v in seen.aliases.items() if a in asked and a not in elsewhere}
    found = {v: _published(repository, model, v, quick=request.quick) for v in sorted(wanted)}
    return replace(seen, published={v: there for v, there in found.items() if there is not None})


def _published(
    repository: Repository, model: str, version: int, *, quick: bool
) -> Published | None:
    try:
        bundle = repository.bundle(model, version)
    except ValidationFailedError as error:
        damage = f"what lies of version {version}: {error.message}"
        return Published(damage=damage, files_intact=False, replaceable=False)
    if bundle is None:
        return None
    if bundle.passed_report() is None:
        damage = f"version {version} of {model}: its {REPORT} does not say that it passed"
        return Published(bundle.sha256, damage, files_intact=False, replaceable=False)
    return Published(bundle.sha256) if quick else _read(repository, bundle)


def _read(repository: Repository, bundle: Bundle) -> Published:
    if repository.is_serving(bundle):
        return Published(bundle.sha256, files_intact=True, intact=True)
    try:
        repository.verify(bundle)
    except ValidationFailedError as error:
        return Published(bundle.sha256, error.message, files_intact=False)
    return Published(bundle.sha256, files_intact=True, intact=False)


def _judge(request: StatusRequest, seen: ModelSnapshot) -> ModelState:
    fixes = FixCommands(seen.model, request.repository, request.triton_urls)
    elsewhere = aliases_elsewhere(seen)
    return ModelState(
        seen.model,
        tuple(
            _alias_state(seen, alias, alias_drift(seen, alias, fixes), elsewhere=alias in elsewhere)
            for alias in seen.asked
            if alias in seen.aliases
        ),
        model_drift(seen, fixes),
    )


def _alias_state(
    seen: ModelSnapshot, alias: str, drift: tuple[Drift, ...], *, elsewhere: bool
) -> AliasState:
    version, tags = seen.aliases[alias], seen.tags(alias)
    record = record_of(tags, alias)
    margin = None
    newest = BundleTags.read(tags)
    if record is not None and newest.sha256 == record.bundle:
        # Else the version was exported again since, and the tag is about the later bundle.
        margin = _number(newest.margin)
    return AliasState(
        alias,
        version,
        record,
        passed=recorded_bundle(tags, "prod" if alias == ARCHIVED else alias) is not None,
        margin=margin,
        published=seen.published.get(version),
        in_config=version in seen.in_config,
        elsewhere=elsewhere,
        servers={
            url: None if ready is None else version in ready for url, ready in seen.ready.items()
        },
        drift=drift,
    )


def _versions_of(model: str, index: Iterable[tuple[str, str]]) -> Iterator[int]:
    for name, text in index:
        if name == model and (version := served_version(text)) is not None:
            yield version


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
