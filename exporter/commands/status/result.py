"""What `stlab status` ends with: one object for machines, a row an alias for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.commands.result import CommandResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.commands.status.drift import Drift
    from exporter.commands.status.snapshot import Published
    from exporter.registry import PromotionRecord

__all__ = ["AliasState", "ModelState", "StatusResult"]


@dataclass(frozen=True, slots=True)
class AliasState:
    """One alias.

    Attributes:
        alias: The alias.
        version: The version that it names.
        record: How it came to.
        passed: Whether that version's evidence for this alias passed.
        margin: The margin of that evidence, where it is known.
        published: What lies in the repository; None for nothing.
        in_config: Whether the live config names the version.
        elsewhere: Whether the alias is kept in another repository.
        servers: Whether each server has the version ready; None where it is silent.
        drift: What is wrong.
    """

    alias: str
    version: int
    record: PromotionRecord | None
    passed: bool
    margin: float | None
    published: Published | None
    in_config: bool
    elsewhere: bool
    servers: Mapping[str, bool | None]
    drift: tuple[Drift, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints of an alias."""
        record, there = self.record, self.published
        return {
            "alias": self.alias,
            "version": self.version,
            "bundle": record and {"sha256": record.bundle, "uri": record.uri},
            "parity": {"passed": self.passed, "margin": self.margin},
            "promoted": record
            and {
                "at": record.at,
                "from": record.previous,
                "by": record.by,
                "reason": record.reason,
            },
            "repository": {
                "published": there is not None,
                "whole": there.files_intact if there else None,
                "served": self.in_config,
                "elsewhere": self.elsewhere,
            },
            "servers": [{"url": url, "served": ready} for url, ready in self.servers.items()],
            "drift": [drift.as_dict() for drift in self.drift],
        }


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model: its aliases in the order of the ladder, and what is wrong beside them."""

    model: str
    aliases: tuple[AliasState, ...]
    drift: tuple[Drift, ...]

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Everything that is wrong with it."""
        return (*(drift for alias in self.aliases for drift in alias.drift), *self.drift)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints of a model."""
        return {
            "model": self.model,
            "aliases": [alias.as_dict() for alias in self.aliases],
            "drift": [drift.as_dict() for drift in self.drift],
        }


@dataclass(frozen=True, slots=True)
class StatusResult(CommandResult):
    """The object that ``--json`` prints.

    Attributes:
        repository: The repository that was looked at.
        models: What was found, by model.
    """

    repository: str = ""
    models: tuple[ModelState, ...] = ()

    @property
    def status(self) -> str:
        """``ok``, ``drift``, or ``failed`` where something could not be looked at."""
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
