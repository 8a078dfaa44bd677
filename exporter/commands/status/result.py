"""The result of the status command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from exporter.commands.result import CommandResult

if TYPE_CHECKING:
    from exporter.commands.status.drift import Drift
    from exporter.commands.status.snapshot import Published
    from exporter.registry import PromotionRecord

__all__ = ["AliasState", "ModelState", "StatusResult"]


@dataclass(frozen=True, slots=True)
class AliasState:
    """The state of an alias.

    Attributes:
        alias: The alias.
        version: The version that it points to.
        record: The record of its promotion, or None.
        passed: Whether the version has passing evidence for the alias.
        margin: The margin of that evidence; None if unknown.
        strength: ``strong`` or ``weak``; empty if unknown.
        published: The published version; None if it is not in the repository.
        in_config: Whether the version is in the live config.
        elsewhere: Whether the alias was promoted to another repository.
        servers: Whether every server has the version ready; None for one that does not answer.
        drift: The drift of the alias.
    """

    alias: str
    version: int
    record: PromotionRecord | None
    passed: bool
    margin: float | None
    strength: str
    published: Published | None
    in_config: bool
    elsewhere: bool
    servers: Mapping[str, bool | None]
    drift: tuple[Drift, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of an alias."""
        record, published = self.record, self.published
        return {
            "alias": self.alias,
            "version": self.version,
            "bundle": record and {"sha256": record.bundle, "uri": record.uri},
            "parity": {
                "passed": self.passed,
                "margin": self.margin,
                "strength": self.strength or None,
            },
            "promoted": record
            and {
                "at": record.at,
                "from": record.previous,
                "by": record.by,
                "reason": record.reason,
            },
            "repository": {
                "published": published is not None,
                "whole": published.files_intact if published else None,
                "served": self.in_config,
                "elsewhere": self.elsewhere,
            },
            "servers": [{"url": url, "served": ready} for url, ready in self.servers.items()],
            "drift": [asdict(drift) for drift in self.drift],
        }


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of a model: its aliases in the order of promotion, and its other drift."""

    model: str
    aliases: tuple[AliasState, ...]
    drift: tuple[Drift, ...]

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """All drift, of the aliases and of the model."""
        return (*(drift for alias in self.aliases for drift in alias.drift), *self.drift)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of a model."""
        return {
            "model": self.model,
            "aliases": [alias.as_dict() for alias in self.aliases],
            "drift": [asdict(drift) for drift in self.drift],
        }


@dataclass(frozen=True, slots=True)
class StatusResult(CommandResult):
    """The result of `status`.

    Attributes:
        repository: The repository.
        models: The state of every model.
    """

    repository: str = ""
    models: tuple[ModelState, ...] = ()

    @property
    def status(self) -> str:
        """``ok``, ``drift``, or ``failed`` if something could not be read."""
        if self.error is not None:
            return "failed"
        return "drift" if any(model.drifts for model in self.models) else "ok"

    def content(self) -> dict[str, Any]:
        """See `CommandResult.content`."""
        return {
            "status": self.status,
            "models": [model.as_dict() for model in self.models],
            "repository": self.repository,
        }
