"""The record of a promotion: the tag ``stlab.promoted.<alias>`` of a version.

A version keeps the record of the last promotion of an alias to it. The record is open while the
alias points to the version, and closed with a time once the alias has moved on. At most one version
of a model has an open record of an alias.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from exporter.bounded_text import UNFIT, parse_json
from exporter.text.redaction import redact, redact_addresses

__all__ = ["PromotionRecord", "now", "open_records", "promoted_tag", "promotion", "repository_of"]


def now() -> str:
    """Return the time as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class PromotionRecord:
    """One promotion of an alias to a version, of the bundle with this sha256.

    Attributes:
        uri: Where the registry stores the bundle.
        by: Who or what moved the alias.
        previous: The version that the alias pointed to before.
        repository: The identity of the repository that the bundle was published to; empty in
            records of older exporters.
        at: Time of the promotion, in UTC.
        until: Time when the alias moved on to another version; empty while the record is open.
    """

    bundle: str
    uri: str
    by: str
    previous: int | None
    repository: str = ""
    at: str = field(default_factory=now)
    reason: str = ""
    until: str = ""

    def as_tag(self) -> str:
        """Return the value of the tag: JSON, without secrets."""
        record: dict[str, Any] = {
            "at": self.at,
            "from": self.previous,
            "by": redact(self.by),
            "bundle": self.bundle,
            "uri": redact_addresses(self.uri),
        }
        optional = {
            "repository": self.repository,
            "reason": redact(self.reason),
            "until": self.until,
        }
        return json.dumps(record | {key: value for key, value in optional.items() if value})


def promoted_tag(alias: str) -> str:
    """Return the name of the tag that holds the record of an alias."""
    return f"stlab.promoted.{alias}"


def promotion(tags: Mapping[str, str], alias: str) -> PromotionRecord | None:
    """Return a version's record of an alias; None if it is missing or unreadable."""
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
    """Return the open records of an alias by version; an interrupted promotion leaves two."""
    found = {version: promotion(tags, alias) for version, tags in versions.items()}
    return {version: record for version, record in found.items() if record and not record.until}
