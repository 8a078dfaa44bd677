"""A snapshot of a model: its state in the registry, in the repository and on the servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.names import ALIAS_ORDER, ALIASES, ARCHIVED
from exporter.proven_bundle import BundleRef, recorded_bundle
from exporter.registry import PromotionRecord, open_records, promotion, repository_of

__all__ = [
    "ModelSnapshot",
    "Published",
    "aliases_elsewhere",
    "interrupted_target",
    "record_of",
    "stale_records",
]


@dataclass(frozen=True, slots=True)
class Published:
    """The state of a published version.

    Attributes:
        sha256: The digest of the bundle; empty if the manifest is unreadable.
        damage: A sentence about a missing or different file; empty if there is none.
        files_intact: Whether every file is the proven one; None if the files were not read.
        intact: Whether the live config and the warm-up data are the proven ones; None if they were
            not read.
        replaceable: Whether the command that restores the bundle overwrites the damaged files.
    """

    sha256: str = ""
    damage: str = ""
    files_intact: bool | None = None
    intact: bool | None = None
    replaceable: bool = True


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """The state of a model at one time.

    Attributes:
        model: The registered model.
        aliases: Every alias with its version.
        versions: The tags of every version.
        selected: The aliases to check.
        repository_id: The identity of the repository.
        published: The published versions.
        in_config: The versions in the live config.
        config_damage: Why the live config is unreadable; empty if it is readable.
        ready: The versions that every server has ready, by address; None if it does not answer.
    """

    model: str
    aliases: Mapping[str, int]
    versions: Mapping[int, Mapping[str, str]]
    selected: tuple[str, ...] = ALIAS_ORDER
    repository_id: str = ""
    published: Mapping[int, Published] = field(default_factory=dict)
    in_config: tuple[int, ...] = ()
    config_damage: str = ""
    ready: Mapping[str, frozenset[int] | None] = field(default_factory=dict)

    def tags(self, alias: str) -> Mapping[str, str]:
        """Return the tags of the version that an alias points to."""
        return self.versions.get(self.aliases[alias], {})

    def bundle(self, alias: str) -> BundleRef | None:
        """Return the proven bundle of an alias; of ``archived``, that of ``prod``."""
        return recorded_bundle(self.tags(alias), "prod" if alias == ARCHIVED else alias)


def record_of(tags: Mapping[str, str], alias: str) -> PromotionRecord | None:
    """Return a version's record of an alias; for ``archived``, else the one of ``prod``."""
    record = promotion(tags, alias)
    return promotion(tags, "prod") if record is None and alias == ARCHIVED else record


def aliases_elsewhere(snapshot: ModelSnapshot) -> frozenset[str]:
    """Return the aliases that were promoted to another repository, so not expected in this one.

    If all of them were, none is returned: this is the wrong repository, or a copy.
    """
    repositories = {
        alias: repository_of(snapshot.tags(alias), alias)
        for alias in ALIASES
        if alias in snapshot.selected and alias in snapshot.aliases
    }
    here = {"", snapshot.repository_id}
    elsewhere = frozenset(alias for alias, found in repositories.items() if found not in here)
    return frozenset() if len(elsewhere) == len(repositories) else elsewhere


def stale_records(snapshot: ModelSnapshot, alias: str) -> dict[int, PromotionRecord]:
    """Return the open records of an alias on versions that it does not point to."""
    found = open_records(snapshot.versions, alias)
    return {version: found[version] for version in found if version != snapshot.aliases.get(alias)}


def interrupted_target(snapshot: ModelSnapshot, alias: str) -> int | None:
    """Return the target of an interrupted promotion of an alias, or None.

    A promotion writes its record first, whose previous version is the alias's current one. An older
    open record was only not closed.
    """
    current = snapshot.aliases.get(alias)
    now = promotion(snapshot.versions.get(current or 0, {}), alias)
    later = {
        version: record
        for version, record in stale_records(snapshot, alias).items()
        if record.previous == current
        and (now is None or now.previous != version or record.at > now.at)
    }
    return max(later, key=lambda version: later[version].at, default=None)
