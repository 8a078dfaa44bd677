"""What an export ends with: one object for machines, the same on success and on failure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporter.commands.result import JobResult, bundle_summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.proven_bundle import ProvenBundle

__all__ = ["ExportResult"]


@dataclass(frozen=True, slots=True)
class ExportResult(JobResult):
    """The object that ``--json`` prints.

    Attributes:
        status: ``promoted``, ``unchanged``, ``planned`` or ``failed``; ``rolled_back``,
            ``pulled``.
        model: The registered model.
        alias: The alias asked for.
        version: The version chosen, once it is known.
        previous: The version that the alias named before.
        bundle: Digest, format, size, and whether an earlier bundle was used.
        parity: The evidence in short.
        repository: Where it was published.
        served_version: The version served under the alias now.
        plan: The steps that would be taken, with ``--dry-run``.
        report: Where the report lies.
    """

    model: str = ""
    alias: str = ""
    version: int | None = None
    previous: int | None = None
    bundle: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] | None = None
    repository: str = ""
    served_version: int | None = None
    plan: tuple[str, ...] = ()
    report: str | None = None

    def with_bundle(self, status: str, proven: ProvenBundle) -> ExportResult:
        """Return the result with what is served under the alias now."""
        return replace(
            self,
            status=status,
            bundle=bundle_summary(proven.bundle, reused=proven.reused),
            parity=proven.parity,
            served_version=proven.bundle.version,
        )

    def content(self) -> dict[str, Any]:
        """See `CommandResult.content`."""
        return {
            "status": self.status,
            "model": self.model,
            "version": self.version,
            "alias": self.alias,
            "previous": self.previous,
            "bundle": self.bundle,
            "parity": self.parity,
            "repository": self.repository,
            "served_version": self.served_version,
            "seconds": dict(self.seconds),
            "plan": list(self.plan),
            "report": self.report,
        }
