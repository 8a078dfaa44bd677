"""Find the drift between registry, repository and servers in a snapshot of a model.

Nothing is read here. Causes hide their consequences: while an alias points to a version without
evidence, or a promotion was interrupted, the published and served versions cannot be right, and one
command fixes all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from exporter.commands.status.fixes import FixCommands
from exporter.commands.status.snapshot import (
    ModelSnapshot,
    aliases_elsewhere,
    interrupted_target,
    stale_records,
)
from exporter.names import ALIASES, ARCHIVED
from exporter.proven_bundle import recorded_bundle
from exporter.registry import open_records, promotion, repository_of

__all__ = ["Drift", "alias_drift", "model_drift"]


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference from the expected state: a machine-readable kind, and the command to fix it."""

    kind: str
    message: str
    fix: str


def alias_drift(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> tuple[Drift, ...]:
    """Return the drift of an alias that points to a version."""
    if causes := tuple(_registry_drift(snapshot, alias, fixes)):
        return causes
    stale = tuple(_stale_records(snapshot, alias, fixes))
    if alias == ARCHIVED or alias in aliases_elsewhere(snapshot):
        return stale
    return (
        *stale,
        *_repository_drift(snapshot, alias, fixes),
        *_server_drift(snapshot, alias, fixes),
    )


def model_drift(snapshot: ModelSnapshot, fixes: FixCommands) -> tuple[Drift, ...]:
    """Return the drift of a model that concerns none of its aliases."""
    return (*_records_without_alias(snapshot, fixes), *_unaliased(snapshot, fixes))


def _registry_drift(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    version = snapshot.aliases[alias]
    record = promotion(snapshot.tags(alias), alias)
    if version not in snapshot.versions:
        yield Drift(
            "version_gone",
            f"'{alias}' points to version {version}, which is gone from the registry",
            _fix_for_gone_version(snapshot, alias, fixes),
        )
    elif snapshot.bundle(alias) is None:
        others = stale_records(snapshot, alias)
        recorded = f"; the open record is of {_join(others)}" if others else ""
        yield Drift(
            "no_evidence",
            f"'{alias}' points to version {version}, which has no passing evidence{recorded}",
            _fix_for_no_evidence(snapshot, alias, fixes),
        )
    elif alias == ARCHIVED:
        if version == snapshot.aliases.get("prod"):
            target = interrupted_target(snapshot, "prod")
            yield Drift(
                "interrupted",
                f"'{ARCHIVED}' and 'prod' point to the same version {version}: a promotion was "
                "interrupted",
                fixes.restore("prod", target) if target else fixes.delete_alias(ARCHIVED),
            )
    elif record is not None and record.until:
        yield Drift(
            "moved_by_hand",
            f"'{alias}' points to version {version}, whose record was closed at {record.until}",
            fixes.restore(alias, version),
        )
    elif target := interrupted_target(snapshot, alias):
        yield Drift(
            "interrupted",
            f"'{alias}' points to version {version}, and its promotion to version {target} was "
            "interrupted",
            fixes.restore(alias, target),
        )


def _stale_records(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    others = stale_records(snapshot, alias)
    holder = "prod" if alias == ARCHIVED else alias
    if others and holder in snapshot.aliases:
        yield Drift(
            "claimed",
            f"{_join(others)} has an open record of '{alias}', which points to version "
            f"{snapshot.aliases[alias]}",
            fixes.restore(holder, snapshot.aliases[holder]),
        )


def _repository_drift(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    version, tags = snapshot.aliases[alias], snapshot.tags(alias)
    record, published = promotion(tags, alias), snapshot.published.get(version)
    fix = fixes.restore(alias, version)
    if published is None:
        here = repository_of(tags, alias) in {"", snapshot.repository_id}
        other = "" if here else "; it was published to another one"
        yield Drift("not_published", f"version {version} is not in the repository{other}", fix)
        return
    served = version in snapshot.in_config
    if published.damage:
        if not published.replaceable:
            fix = fixes.replace(alias, version)
        yield Drift("damaged", published.damage, fix)
    elif record is not None and published.sha256 != record.bundle:
        yield Drift(
            "other_bundle",
            f"the repository has bundle {published.sha256[:12]} of version {version}, and bundle "
            f"{record.bundle[:12]} was promoted",
            fixes.replace(alias, version) if served else fix,
        )
    if snapshot.config_damage:
        yield Drift("config_damaged", snapshot.config_damage, fixes.restore(alias, version))
    elif not served:
        yield Drift(
            "not_in_config",
            f"the live config serves {_versions(snapshot.in_config)}, not version {version}",
            fix,
        )
    elif published.files_intact and published.intact is False:
        yield Drift(
            "config_differs",
            f"the live config or a warm-up file of version {version} differs from the proven one",
            fix,
        )


def _server_drift(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    version = snapshot.aliases[alias]
    for url, ready in snapshot.ready.items():
        if ready is not None and version not in ready:
            yield Drift(
                "not_served",
                f"the server at {url} serves {_versions(ready)}, not version {version}",
                fixes.restore(alias, version),
            )


def _records_without_alias(snapshot: ModelSnapshot, fixes: FixCommands) -> Iterator[Drift]:
    for alias in ALIASES:
        others = {} if alias in snapshot.aliases else open_records(snapshot.versions, alias)
        if alias not in snapshot.selected or not others:
            continue
        version = max(others, key=lambda version: others[version].at)
        staged = snapshot.aliases.get("staging") == version
        yield Drift(
            "claimed",
            f"{_join(others)} has an open record of '{alias}', which points to no version",
            fixes.prove("staging" if alias == "prod" and not staged else alias, version),
        )


def _unaliased(snapshot: ModelSnapshot, fixes: FixCommands) -> Iterator[Drift]:
    """Find served versions without an alias: a request without a version gets the highest one."""
    serving = {f"the server at {url}": ready for url, ready in snapshot.ready.items() if ready}
    # The fix of an alias also stops serving unaliased versions, except that of a stale record.
    alias_fixes = [
        drift.fix
        for alias in ALIASES
        if alias in snapshot.selected and alias in snapshot.aliases
        for drift in alias_drift(snapshot, alias, fixes)
        if drift.kind != "claimed"
    ]
    fix = next(iter(alias_fixes), fixes.drop_unaliased())
    for server, versions in {"the live config": snapshot.in_config, **serving}.items():
        unaliased = sorted(set(versions) - set(snapshot.aliases.values()))
        if unaliased:
            message = f"{server} serves {_versions(unaliased)} without an alias"
            yield Drift("nameless", message, fix)


def _fix_for_no_evidence(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> str:
    """Return the command that moves an alias to a proven version, if possible the current one."""
    version, tags = snapshot.aliases[alias], snapshot.tags(alias)
    if alias == ARCHIVED:
        return fixes.delete_alias(alias)
    if recorded_bundle(tags, alias):
        return fixes.restore(alias, version)
    if alias != "prod" or (
        snapshot.aliases.get("staging") == version and recorded_bundle(tags, "staging")
    ):
        return fixes.prove(alias, version)
    before = [
        v for v in stale_records(snapshot, alias) if recorded_bundle(snapshot.versions[v], alias)
    ]
    return fixes.restore(alias, max(before)) if before else fixes.prove("staging", version)


def _fix_for_gone_version(snapshot: ModelSnapshot, alias: str, fixes: FixCommands) -> str:
    """Return the command that moves an alias to its recorded version, or to the last proven one."""
    if alias in {"prod", ARCHIVED}:
        return fixes.delete_alias(alias)
    records = {v: promotion(tags, alias) for v, tags in snapshot.versions.items()}
    proven = {
        version: (not record.until, record.at)
        for version, record in records.items()
        if record is not None and recorded_bundle(snapshot.versions[version], alias)
    }
    if proven:
        return fixes.restore(alias, max(proven, key=lambda version: proven[version]))
    return fixes.prove(alias, max(snapshot.versions))


def _join(records: Iterable[int]) -> str:
    return " and ".join(f"version {version}" for version in sorted(records))


def _versions(versions: Collection[int]) -> str:
    if not versions:
        return "no version of it"
    return f"version{'s' * (len(versions) > 1)} {', '.join(map(str, sorted(versions)))}"
