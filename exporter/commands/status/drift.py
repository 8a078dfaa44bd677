"""What is not as it should be between a registry, a repository and its servers: the judgement.

It is made of what was seen alone; nothing is looked up here. Causes come before what follows from
them: while an alias names a version that was never proven for it, or a promotion is halfway, what
is published and served cannot be right, and one command mends all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.commands.status.snapshot import (
    ModelSnapshot,
    aliases_elsewhere,
    interrupted_target,
    stale_records,
)
from exporter.names import ALIASES, ARCHIVED
from exporter.proven_bundle import recorded_bundle
from exporter.registry import open_records, promotion, repository_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from exporter.commands.status.fixes import FixCommands

__all__ = ["Drift", "alias_drift", "model_drift"]


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as it should be.

    Attributes:
        kind: A word for machines.
        message: What is wrong.
        fix: The command that mends it.
    """

    kind: str
    message: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        """Return the object that ``--json`` prints."""
        return {"kind": self.kind, "message": self.message, "fix": self.fix}


def alias_drift(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> tuple[Drift, ...]:
    """Return what is wrong with an alias.

    Args:
        seen: What was seen of the model.
        alias: An alias that names a version.
        fixes: Which command mends what.
    """
    for causes in (_registry_drift, _archived_drift):
        found = tuple(causes(seen, alias, fixes))
        if found:
            return found
    stale = tuple(_stale_claims(seen, alias, fixes))
    if alias == ARCHIVED or alias in aliases_elsewhere(seen):
        return stale
    return (
        *stale,
        *_repository_drift(seen, alias, fixes),
        *_server_drift(seen, alias, fixes),
    )


def model_drift(seen: ModelSnapshot, fixes: FixCommands) -> tuple[Drift, ...]:
    """Return what is wrong with a model beside its aliases."""
    return (*_unset_claims(seen, fixes), *_unaliased(seen, fixes))


def _registry_drift(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    version = seen.aliases[alias]
    if version not in seen.versions:
        yield Drift(
            "version_gone",
            f"'{alias}' names version {version}, which the registry no longer has",
            _instead_of_gone(seen, alias, fixes),
        )
        return
    tags = seen.tags(alias)
    others = stale_records(seen, alias)
    taken = recorded_bundle(tags, "prod" if alias == ARCHIVED else alias)
    record = promotion(tags, alias)
    if taken is None:
        since = f", the record says {_join(others)}" if others else ""
        yield Drift(
            "no_evidence",
            f"'{alias}' names version {version}, which was never proven for it{since}",
            _proven(seen, alias, fixes),
        )
    elif alias != ARCHIVED and record is not None and record.until:
        yield Drift(
            "moved_by_hand",
            f"'{alias}' names version {version}, whose record ended at {record.until}",
            fixes.restore(alias, version),
        )
    elif alias != ARCHIVED and (target := interrupted_target(seen, alias)):
        yield Drift(
            "interrupted",
            f"'{alias}' names version {version}, and its promotion to version {target} was not "
            "run_job",
            fixes.restore(alias, target),
        )


def _archived_drift(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    prod = seen.aliases.get("prod")
    if alias != ARCHIVED or seen.aliases[alias] != prod:
        return
    target = interrupted_target(seen, "prod")
    yield Drift(
        "interrupted",
        f"'{ARCHIVED}' names version {prod}, which 'prod' still names: a promotion was not run_job",
        fixes.restore("prod", target) if target else fixes.forget(ARCHIVED),
    )


def _stale_claims(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    others = stale_records(seen, alias)
    holder = "prod" if alias == ARCHIVED else alias
    if others and holder in seen.aliases:
        yield Drift(
            "claimed",
            f"{_join(others)} says that '{alias}' names it, and '{alias}' names version "
            f"{seen.aliases[alias]}",
            fixes.restore(holder, seen.aliases[holder]),
        )


def _repository_drift(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    version, tags = seen.aliases[alias], seen.tags(alias)
    record, there = promotion(tags, alias), seen.published.get(version)
    fix = fixes.restore(alias, version)
    if there is None:
        home = repository_of(tags, alias)
        other = "" if home in {"", seen.here} else "; it was published to another one"
        yield Drift("not_published", f"version {version} is not in the repository{other}", fix)
        return
    served = version in seen.in_config
    if there.damage:
        if not there.replaceable:
            fix = fixes.replace(alias, version)
        yield Drift("damaged", there.damage, fix)
    elif record is not None and there.sha256 != record.bundle:
        yield Drift(
            "other_bundle",
            f"the bundle of version {version} in the repository is {there.sha256[:12]}, and what "
            f"was proven is {record.bundle[:12]}",
            fixes.replace(alias, version) if served else fix,
        )
    if seen.config_damage:
        yield Drift("config_damaged", seen.config_damage, fixes.restore(alias, version))
    elif not served:
        yield Drift(
            "not_in_config",
            f"the live config serves {_versions(seen.in_config)}, not version {version}",
            fix,
        )
    elif there.files_intact and there.intact is False:
        yield Drift(
            "config_differs",
            f"the live config, or another file beside version {version}, is not what was proven",
            fix,
        )


def _server_drift(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> Iterator[Drift]:
    version = seen.aliases[alias]
    for url, ready in seen.ready.items():
        if ready is not None and version not in ready:
            yield Drift(
                "not_served",
                f"the server at {url} serves {_versions(ready)}, not version {version}",
                fixes.restore(alias, version),
            )


def _unset_claims(seen: ModelSnapshot, fixes: FixCommands) -> Iterator[Drift]:
    for alias in ALIASES:
        others = {} if alias in seen.aliases else open_records(seen.versions, alias)
        if alias not in seen.asked or not others:
            continue
        version = max(others, key=lambda version: others[version].at)
        staged = seen.aliases.get("staging") == version
        yield Drift(
            "claimed",
            f"{_join(others)} says that '{alias}' names it, and '{alias}' names nothing",
            fixes.prove("staging" if alias == "prod" and not staged else alias, version),
        )


def _unaliased(seen: ModelSnapshot, fixes: FixCommands) -> Iterator[Drift]:
    """Find what is served without a name: who asks for no version gets the highest one."""
    serving = {f"the server at {url}": ready for url, ready in seen.ready.items() if ready}
    # What mends an alias serves what has a name, and nothing else; a claim is only closed.
    mending = [
        drift.fix
        for alias in ALIASES
        if alias in seen.asked and alias in seen.aliases
        for drift in alias_drift(seen, alias, fixes)
        if drift.kind != "claimed"
    ]
    fix = next(iter(mending), fixes.drop_unaliased())
    for who, versions in {"the live config": seen.in_config, **serving}.items():
        nameless = sorted(set(versions) - seen.named)
        if nameless:
            message = f"{who} serves {_versions(nameless)}, which no alias names"
            yield Drift("nameless", message, fix)


def _proven(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> str:
    """Return what lets an alias name a proven version, at best the one that it names now."""
    version, tags = seen.aliases[alias], seen.tags(alias)
    if alias == ARCHIVED:
        return fixes.forget(alias)
    if recorded_bundle(tags, alias):
        return fixes.restore(alias, version)
    if alias != "prod" or (
        seen.aliases.get("staging") == version and recorded_bundle(tags, "staging")
    ):
        return fixes.prove(alias, version)
    before = [v for v in stale_records(seen, alias) if recorded_bundle(seen.versions[v], alias)]
    return fixes.restore(alias, max(before)) if before else fixes.prove("staging", version)


def _instead_of_gone(seen: ModelSnapshot, alias: str, fixes: FixCommands) -> str:
    """Return what takes an alias to the version that it should name, or was the last to name."""
    if alias in {"prod", ARCHIVED}:
        return fixes.forget(alias)
    records = {v: promotion(tags, alias) for v, tags in seen.versions.items()}
    proven = {
        version: (not record.until, record.at)
        for version, record in records.items()
        if record is not None and recorded_bundle(seen.versions[version], alias)
    }
    if proven:
        return fixes.restore(alias, max(proven, key=lambda version: proven[version]))
    return fixes.prove(alias, max(seen.versions))


def _join(records: Iterable[int]) -> str:
    return " and ".join(f"version {version}" for version in sorted(records))


def _versions(versions: Collection[int]) -> str:
    if not versions:
        return "nothing of it"
    return f"version{'s' * (len(versions) > 1)} {', '.join(map(str, sorted(versions)))}"
