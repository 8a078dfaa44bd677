"""What `export`, `rollback` and `pull` share, and the rules by which an alias is moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from exporter.commands.export.result import ExportResult
from exporter.commands.request import AliasRequest
from exporter.commands.result import Job
from exporter.errors import ConflictError, UsageError, ValidationFailedError
from exporter.progress import Listener
from exporter.proven_bundle import ProvenBundle
from exporter.registry import PromotionRecord, Registry, Selection, promote
from exporter.repository import open_repository
from exporter.rollout.rollout import Rollout, versions_to_keep

__all__ = ["AliasJob", "check_movable", "check_strength"]

Request = TypeVar("Request", bound=AliasRequest)


class AliasJob(Job[Request, ExportResult]):
    """A job that brings the bundle of an alias into a repository."""

    def __init__(self, request: Request, listener: Listener | None) -> None:
        result = ExportResult(
            model=request.model, alias=request.alias, repository=request.repository
        )
        super().__init__(request, result, listener)
        self.repository = open_repository(request.repository)

    def promote(
        self,
        rollout: Rollout,
        registry: Registry,
        selection: Selection,
        proven: ProvenBundle,
        *,
        reason: str = "",
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Publish, activate and verify a bundle, run a callback, and move the alias."""
        model, alias = selection.model, self.request.alias
        # Read again: other aliases may have moved while this version was proven.
        other_versions = versions_to_keep(
            self.repository, model, alias, registry.aliases(model), selection.versions
        )
        with rollout.apply(proven.bundle, other_versions, self.steps), self.steps("promote"):
            self.repository.ensure_locked(model)
            before()
            record = PromotionRecord(
                bundle=proven.bundle.sha256,
                uri=proven.uri,
                by=_triggered_by(),
                previous=selection.previous,
                repository=self.repository.identity(),
                reason=reason,
            )
            promote(registry, selection, alias, record)


def check_movable(
    alias: str, current: int | None, expected: int | None, *, allow_manual: bool
) -> None:
    """Check that CI moves ``prod``, and that an alias points to the expected version.

    ``expected`` is 0 for none, and None to accept any.

    Raises:
        UsageError: ``prod`` is moved outside CI without ``--allow-manual``.
        ConflictError: The alias points to another version.
    """
    if alias == "prod" and not (_in_ci() or allow_manual):
        raise UsageError(
            "'prod' is moved by CI only",
            hint="Run the command in a pipeline (CI=true), or record an exception with "
            "--allow-manual.",
        )
    if expected is not None and (current or 0) != expected:
        raise ConflictError(
            f"'{alias}' points to version {current or 'none'}, not {expected} as expected",
            hint="Another promotion has moved it; check that one first.",
        )


def check_strength(
    alias: str, parity: Mapping[str, Any], *, allow_weak: bool, require_coverage: float
) -> bool:
    """Check that evidence is as strong as an alias needs; return whether ``prod`` takes a weak one.

    Raises:
        ValidationFailedError: ``prod`` would take weak evidence that is not allowed, or less of the
            model was compared than is required; the kind is ``evidence``.
    """
    for kind, count in parity["coverage"].items():
        if count["seen"] < require_coverage * count["known"]:
            raise ValidationFailedError(
                f"the comparisons cover {count['seen']} of {count['known']} {kind}, less than "
                f"--require-coverage {require_coverage:g}",
                hint="Give inputs that reach more of them with --samples FILE.npz.",
                kind="evidence",
            )
    weak = alias == "prod" and parity["strength"] == "weak"
    if weak and not allow_weak:
        why = parity["warnings"][0].partition(". ")[0].rstrip(".")
        raise ValidationFailedError(
            f"'prod' requires strong evidence, and this is weak: {why}",
            hint="Log the model with an input_example of typical rows, or export it to 'staging' "
            "with --samples FILE.npz; --allow-weak-evidence accepts it, on record.",
            kind="evidence",
        )
    return weak


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def _triggered_by() -> str:
    """Return what runs the command: the URL or id of a CI job, ``CI`` or ``manual``."""
    for name in ("CI_PIPELINE_URL", "CI_JOB_URL", "BUILD_URL", "GITHUB_RUN_ID"):
        if os.environ.get(name):
            return os.environ[name]
    return "CI" if _in_ci() else "manual"
