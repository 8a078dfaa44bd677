"""What an export ends with: one object for machines, the same on success and on failure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from exporter.errors import StlabError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.bundle import Bundle
    from exporter.progress import Steps
    from exporter.proven_bundle import ProvenBundle

__all__ = ["ExportResult", "Job", "bundle_summary", "interrupted", "run_job"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ExportResult:
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
        seconds: By step, with ``total``.
        plan: The steps that would be taken, with ``--dry-run``.
        report: Where the report lies.
        error: Kind, message and hint.
        exit_code: The process's.
    """

    status: str
    model: str
    alias: str
    version: int | None = None
    previous: int | None = None
    bundle: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] | None = None
    repository: str = ""
    served_version: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    report: str | None = None
    error: Mapping[str, str] | None = None
    exit_code: int = 0

    def failed(self, error: StlabError) -> ExportResult:
        """Return the result with an error in it."""
        return replace(self, status="failed", error=error.as_dict(), exit_code=error.exit_code)

    def with_bundle(self, status: str, proven: ProvenBundle) -> ExportResult:
        """Return the result with what is served under the alias now."""
        return replace(
            self,
            status=status,
            bundle=bundle_summary(proven.bundle, reused=proven.reused),
            parity=proven.parity,
            served_version=proven.bundle.version,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the object, with the same keys in every case."""
        return {
            "schema": SCHEMA,
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
            "error": self.error,
        }


def bundle_summary(bundle: Bundle, *, reused: bool) -> dict[str, Any]:
    """Return the ``bundle`` object of ``--json``."""
    return {
        "sha256": bundle.sha256,
        "format": bundle.manifest["format"],
        "bytes": bundle.size,
        "reused": reused,
    }


class Job(Protocol):
    """What ends with an `ExportResult`, kept up to date while it goes on."""

    result: ExportResult
    steps: Steps

    def run(self) -> None:
        """Do it.

        Raises:
            StlabError: It failed; what was begun is undone.
        """


def run_job(job: Job) -> ExportResult:
    """Do a job, and return its result; what went wrong is in it."""
    try:
        job.run()
    except StlabError as error:
        job.result = job.result.failed(error)
    except KeyboardInterrupt:
        if job.result.status == "failed":
            job.result = job.result.failed(interrupted())
    return replace(job.result, seconds=job.steps.seconds)


def interrupted() -> StlabError:
    """Return what a command ends with that was told to stop."""
    return StlabError(
        "interrupted; what was begun is undone",
        hint="Run the same command again.",
        kind="interrupted",
    )
