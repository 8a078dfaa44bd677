"""How aliases came to name what they name: the tags ``stlab.promoted.<alias>`` of versions.

A version keeps the record of the last time that an alias came to name it. While the alias does, the
record is open; once it names another version, the record says until when it did. At most one
version of a model holds an open record of an alias.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from exporter.text.redaction import redact, redact_addresses
from exporter.untrusted import UNFIT, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PromotionRecord", "open_records", "promoted_tag", "promotion", "repository_of"]

_PROMOTED = "stlab.promoted."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class PromotionRecord:
    """One record.

    Attributes:
        bundle: The digest of the bundle that the alias took.
        uri: Where the registry keeps that bundle.
        by: Who or what moved the alias.
        previous: The version that it named before.
        repository: The identity of the repository that it was published to; empty where an older
            exporter did not say.
        at: When it was moved, in UTC.
        reason: Why, where somebody said so.
        until: When the alias went on to another version; empty while it has not.
    """

    bundle: str
    uri: str
    by: str
    previous: int | None
    repository: str = ""
    at: str = field(default_factory=_now)
    reason: str = ""
    until: str = ""

    def as_tag(self) -> str:
        """Return the record as the tag holds it."""
        record: dict[str, Any] = {
            "at": self.at,
            "from": self.previous,
            "by": redact(self.by),
            "bundle": self.bundle,
            "uri": redact_addresses(self.uri),
        }
        further = {
            "repository": self.repository,
            "reason": redact(self.reason),
            "until": self.until,
        }
        record |= {key: value for key, value in further.items() if value}
        return json.dumps(record)


def promoted_tag(alias: str) -> str:
    """Return the name of the tag that holds the record of an alias."""
    return f"{_PROMOTED}{alias}"


def promotion(tags: Mapping[str, str], alias: str) -> PromotionRecord | None:
    """Read a version's record of an alias; None where there is none that can be read."""
    try:
        record = parse_json(tags[promoted_tag(alias)])
        previous = record["from"]
        return PromotionRecord(
            bundle=str(record["bundle"]),
            uri=str(record["uri"]),
            by=str(record["by"]),
            previous=None if previous is None else int(previous),
            repository=str(record.get("repository", "")),
            at=str(record["at"]),
            reason=str(record.get("reason", "")),
            until=str(record.get("until", "")),
        )
    except UNFIT:
        return None


def repository_of(tags: Mapping[str, str], alias: str) -> str:
    """Return the identity of the repository that a version was published to for an alias."""
    record = promotion(tags, alias)
    return "" if record is None else record.repository


def open_records(
    versions: Mapping[int, Mapping[str, str]], alias: str
) -> dict[int, PromotionRecord]:
    """Return the open records of an alias, by version; more than one is one too many.

    Args:
        versions: The tags of every version.
        alias: The alias.
    """
    found = {version: promotion(tags, alias) for version, tags in versions.items()}
    return {
        version: record
        for version, record in found.items()
        if record is not None and not record.until
    }
