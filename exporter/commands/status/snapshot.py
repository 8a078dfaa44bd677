"""What was seen of a model: in its registry, in the repository, on its servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.names import ALIAS_ORDER, ALIASES, ARCHIVED
from exporter.registry import open_records, promotion, repository_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.registry import PromotionRecord

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
    """What lies of a version in the repository.

    Attributes:
        sha256: The digest of the bundle; empty where none can be read.
        damage: Which file is missing or differs, in a sentence; empty where none.
        files_intact: Whether every file is the one that was proven; None where none was read.
        intact: Whether the live config and the warm-up data are what serves it; None likewise.
        replaceable: Whether the command that restores the bundle would overwrite what is damaged.
    """

    sha256: str = ""
    damage: str = ""
    files_intact: bool | None = None
    intact: bool | None = None
    replaceable: bool = True


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """What was seen of one model.

    Attributes:
        model: The registered model.
        aliases: What every alias names.
        versions: The tags of every version.
        asked: The aliases to judge.
        here: The identity of the repository.
        published: What lies in the repository, by version.
        in_config: The versions that the live config names.
        config_damage: Why the live config cannot be read; empty where it can.
        ready: The versions that each server has ready, by its address; None where it is silent.
    """

    model: str
    aliases: Mapping[str, int]
    versions: Mapping[int, Mapping[str, str]]
    asked: tuple[str, ...] = ALIAS_ORDER
    here: str = ""
    published: Mapping[int, Published] = field(default_factory=dict)
    in_config: tuple[int, ...] = ()
    config_damage: str = ""
    ready: Mapping[str, frozenset[int] | None] = field(default_factory=dict)

    def tags(self, alias: str) -> Mapping[str, str]:
        """Return the tags of the version that an alias names."""
        return self.versions.get(self.aliases[alias], {})

    @property
    def named(self) -> frozenset[int]:
        """The versions that any alias names."""
        return frozenset(self.aliases.values())


def record_of(tags: Mapping[str, str], alias: str) -> PromotionRecord | None:
    """Return a version's record of an alias; of ``archived``, which goes back to ``prod``, both."""
    record = promotion(tags, alias)
    return promotion(tags, "prod") if record is None and alias == ARCHIVED else record


def aliases_elsewhere(seen: ModelSnapshot) -> frozenset[str]:
    """Return the aliases that are kept in another repository, and so not looked for in this one.

    Where none is kept in this one, all of them are looked for: it is the wrong one, or a copy.
    """
    kept = {
        alias: repository_of(seen.tags(alias), alias)
        for alias in ALIASES
        if alias in seen.asked and alias in seen.aliases
    }
    elsewhere = frozenset(alias for alias, home in kept.items() if home not in {"", seen.here})
    return frozenset() if len(elsewhere) == len(kept) else elsewhere


def stale_records(seen: ModelSnapshot, alias: str) -> dict[int, PromotionRecord]:
    """Return the open records of an alias on versions that it does not name."""
    found = open_records(seen.versions, alias)
    return {version: found[version] for version in found if version != seen.aliases.get(alias)}


def interrupted_target(seen: ModelSnapshot, alias: str) -> int | None:
    """Return the version that an alias was being moved to when somebody was interrupted.

    The record is written first: it names as the version before the one that the alias names now.
    A record that is older was only not closed.
    """
    current = seen.aliases.get(alias)
    now = promotion(seen.versions.get(current or 0, {}), alias)
    later = {
        version: record
        for version, record in stale_records(seen, alias).items()
        if record.previous == current
        and (now is None or now.previous != version or record.at > now.at)
    }
    return max(later, key=lambda version: later[version].at, default=None)
