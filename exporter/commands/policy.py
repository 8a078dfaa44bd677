"""The rules of a promotion: ``prod`` is moved by CI, and ``--expect-current`` holds."""

from __future__ import annotations

import os

from exporter.errors import ConflictError, UsageError

__all__ = ["check_expected", "check_prod_allowed", "in_ci", "triggered_by"]


def in_ci() -> bool:
    """Whether the command runs in a CI pipeline."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def triggered_by() -> str:
    """Return what runs the command: the URL or id of a CI job, ``CI`` or ``manual``."""
    for name in ("CI_PIPELINE_URL", "CI_JOB_URL", "BUILD_URL", "GITHUB_RUN_ID"):
        if os.environ.get(name):
            return os.environ[name]
    return "CI" if in_ci() else "manual"


def check_prod_allowed(alias: str, *, allow_manual: bool) -> None:
    """Check that ``prod`` is moved by CI, or that an exception is allowed.

    Raises:
        UsageError: ``prod`` is moved outside CI without ``--allow-manual``.
    """
    if alias == "prod" and not (in_ci() or allow_manual):
        raise UsageError(
            "'prod' is moved by CI only",
            hint="Run the command in a pipeline (CI=true), or record an exception with "
            "--allow-manual.",
        )


def check_expected(alias: str, current: int | None, expected: int | None) -> None:
    """Check that an alias points to the version that the caller expects.

    Args:
        alias: The alias.
        current: The version that it points to, or None.
        expected: The expected version, 0 for none; None to accept any.

    Raises:
        ConflictError: The alias points to another version.
    """
    if expected is not None and (current or 0) != expected:
        raise ConflictError(
            f"'{alias}' points to version {current or 'none'}, not {expected} as expected",
            hint="Another promotion has moved it; check that one first.",
        )
