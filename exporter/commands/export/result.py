"""The result of an export, a rollback or a pull."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporter.commands.result import JobResult, bundle_summary

if TYPE_CHECKING:
    from exporter.proven_bundle import ProvenBundle

__all__ = ["ExportResult"]


@dataclass(frozen=True, slots=True)
class ExportResult(JobResult):
    """The result of `export`, `rollback` and `pull`.

    Attributes:
        status: ``promoted``, ``unchanged``, ``planned`` or ``failed``; of a rollback
            ``rolled_back``, of a pull ``pulled``.
        model: The registered model.
        alias: The requested alias.
        version: The selected version, or None before the selection.
        previous: The version that the alias pointed to before.
        bundle: Digest, format, size, and whether an earlier bundle was reused.
        parity: The summary of the evidence.
        repository: The model repository.
        served_version: The version served under the alias now.
        plan: The planned steps of a dry run.
        report: The address of the report.
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
        """Return the result with a status, and the bundle served under the alias now."""
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
