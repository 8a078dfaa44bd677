"""Who may move an alias, and from where it must be moved."""

from __future__ import annotations

import os

from exporter.errors import ConflictError, UsageError

__all__ = ["check_expected", "check_prod_allowed", "in_ci", "triggered_by"]


def in_ci() -> bool:
    """Whether the command runs in a pipeline."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def triggered_by() -> str:
    """Return who or what runs the command, for the record."""
    for name in ("CI_PIPELINE_URL", "CI_JOB_URL", "BUILD_URL", "GITHUB_RUN_ID"):
        if os.environ.get(name):
            return os.environ[name]
    return "CI" if in_ci() else "manual"


def check_prod_allowed(alias: str, *, allow_manual: bool) -> None:
    """Refuse to move ``prod`` by hand.

    Raises:
        UsageError: It is, and nobody said that this is an exception.
    """
    if alias == "prod" and not (in_ci() or allow_manual):
        raise UsageError(
            "'prod' is moved by CI, not by hand",
            hint="Run it in a pipeline (CI=true), or record the exception with --allow-manual.",
        )


def check_expected(alias: str, current: int | None, expected: int | None) -> None:
    """Refuse to go on where an alias names another version than the caller believes.

    Args:
        alias: The alias.
        current: The version that it names.
        expected: The version that it should name, 0 for none; None for whatever it is.

    Raises:
        ConflictError: It does not.
    """
    if expected is not None and (current or 0) != expected:
        raise ConflictError(
            f"'{alias}' names version {current or 'none'}, not {expected} as expected",
            hint="Somebody promoted meanwhile; look at it before you go on.",
        )
