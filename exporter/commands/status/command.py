"""Read the state of models from registry, repository and servers, and compare it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from exporter.bundle import REPORT, Bundle
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
    DEFAULT_REPOSITORY,
    DEFAULT_TRACKING_URI,
    model_name,
    served_version,
)
from exporter.registry import Registry
from exporter.registry.version_tags import BundleTags
from exporter.repository import Repository, open_repository
from exporter.triton.connection import connect

__all__ = ["StatusRequest", "status"]

_TAG_PREFIX = "stlab."


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """The request of `status`.

    Attributes:
        model: The registered model; None for all that were ever exported.
        aliases: The aliases to show; empty for all.
        repository: The model repository.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of servers.
        check: Whether drift sets the exit code.
        quick: Whether to skip reading the files of published bundles.

    Raises:
        UsageError: The model's name is invalid.
        NotFoundError: An alias does not exist.
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
                    f"alias {alias!r} does not exist; aliases: {', '.join(ALIAS_ORDER)}",
                    hint="Choose one of them with --alias.",
                )


def status(request: StatusRequest) -> StatusResult:
    """Compare the aliases of models with repository and servers.

    The result has the state of all models that could be read; on failure it has the error as well.
    """
    result = StatusResult(request.repository)
    try:
        servers, error = _servers(request.triton_urls)
        registry = Registry.connect(request.tracking_uri)
        repository = open_repository(request.repository)
        for in_registry in _models(registry, request.model):
            snapshot = _take_snapshot(request, repository, in_registry, servers)
            result = replace(result, models=(*result.models, _model_state(request, snapshot)))
    except StlabError as failure:
        error = failure
    if error is not None:
        return result.failed(error)
    drifted = request.check and result.status == "drift"
    return replace(result, exit_code=ConflictError.exit_code) if drifted else result


_Ready = dict[str, frozenset[tuple[str, int]] | None]


def _servers(urls: tuple[str, ...]) -> tuple[_Ready, StlabError | None]:
    """Return the models and versions that every server has ready, and the first error."""
    found: _Ready = {}
    first_error = None
    for url in urls:
        try:
            with connect(url) as client:
                found[url] = frozenset(
                    (entry.name, version)
                    for entry in client.repository.index(ready=True)
                    if (version := served_version(entry.version)) is not None
                )
        except UsageError:
            raise
        except StlabError as error:
            found[url], first_error = None, first_error or error
    return found, first_error


def _models(registry: Registry, model: str | None) -> Iterator[ModelSnapshot]:
    if model is not None:
        yield ModelSnapshot(model, *registry.get_model(model))
        return
    for name in registry.models():
        try:
            model_name(name)
            aliases, versions = registry.get_model(name)
        except (UsageError, NotFoundError):
            continue  # the name is not exportable, or the model has no versions
        tagged = any(key.startswith(_TAG_PREFIX) for tags in versions.values() for key in tags)
        if tagged or set(ALIAS_ORDER) & set(aliases):
            yield ModelSnapshot(name, aliases, versions)


def _take_snapshot(
    request: StatusRequest, repository: Repository, snapshot: ModelSnapshot, servers: _Ready
) -> ModelSnapshot:
    """Add the state in the repository and on the servers to a model's state in the registry."""
    model = snapshot.model
    selected = tuple(a for a in ALIAS_ORDER if a in (request.aliases or ALIAS_ORDER))
    try:
        in_config, damage = repository.served_versions(model), ""
    except ValidationFailedError as error:
        in_config, damage = (), error.message
    snapshot = replace(
        snapshot,
        selected=selected,
        repository_id=repository.identity(),
        in_config=in_config,
        config_damage=damage,
        ready={
            url: index if index is None else frozenset(v for name, v in index if name == model)
            for url, index in servers.items()
        },
    )
    elsewhere = aliases_elsewhere(snapshot)
    wanted = {v for a, v in snapshot.aliases.items() if a in selected and a not in elsewhere}
    found = {v: _published(repository, model, v, quick=request.quick) for v in sorted(wanted)}
    return replace(snapshot, published={v: p for v, p in found.items() if p is not None})


def _published(
    repository: Repository, model: str, version: int, *, quick: bool
) -> Published | None:
    try:
        bundle = repository.bundle(model, version)
    except ValidationFailedError as error:
        damage = f"version {version} of {model}: {error.message}"
        return Published(damage=damage, files_intact=False, replaceable=False)
    if bundle is None:
        return None
    if bundle.passed_report() is None:
        damage = f"version {version} of {model}: its {REPORT} holds no passing evidence"
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


def _model_state(request: StatusRequest, snapshot: ModelSnapshot) -> ModelState:
    fixes = FixCommands(snapshot.model, request.repository, request.triton_urls)
    states = tuple(
        _alias_state(snapshot, alias, fixes)
        for alias in snapshot.selected
        if alias in snapshot.aliases
    )
    return ModelState(snapshot.model, states, model_drift(snapshot, fixes))


def _alias_state(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> AliasState:
    version, tags = snapshot.aliases[alias], snapshot.tags(alias)
    record = record_of(tags, alias)
    margin, strength = None, ""
    newest = BundleTags.read(tags)
    if record is not None and newest.sha256 == record.bundle:
        # Otherwise the version was exported again, and the tag is about the later bundle.
        margin, strength = _number(newest.margin), newest.strength
    return AliasState(
        alias,
        version,
        record,
        passed=snapshot.bundle(alias) is not None,
        margin=margin,
        strength=strength,
        published=snapshot.published.get(version),
        in_config=version in snapshot.in_config,
        elsewhere=alias in aliases_elsewhere(snapshot),
        servers={
            url: None if ready is None else version in ready
            for url, ready in snapshot.ready.items()
        },
        drift=alias_drift(snapshot, alias, fixes),
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
