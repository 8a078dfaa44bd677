"""Names from outside, checked before any of them becomes a path."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from exporter.errors import NotFoundError, UsageError, ValidationFailed

__all__ = ["ALIASES", "ARCHIVED", "alias_name", "artifact_path", "model_name", "served_version"]

ALIASES = ("dev", "staging", "prod")
"""The aliases that an export may move."""

ARCHIVED = "archived"
"""The alias of the version that ``prod`` named before: what a rollback goes back to."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
# Triton reads a version directory with stoll(), so that "3.tmp" would be version 3.
_VERSION = re.compile(r"[1-9]\d{0,17}")


def model_name(name: str) -> str:
    """Return a model name that is safe as the name of a directory.

    Raises:
        UsageError: It holds anything but letters, digits, ``_``, ``-`` and ``.``.
    """
    if not _MODEL.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a model in a Triton repository",
            hint="Use letters, digits, '_', '-' and '.', beginning with a letter or a digit.",
        )
    return name


def alias_name(alias: str) -> str:
    """Return an alias that a command may move.

    Raises:
        NotFoundError: There is no such alias.
    """
    if alias not in ALIASES:
        raise NotFoundError(
            f"there is no alias {alias!r} to move; there are: {', '.join(ALIASES)}",
            hint="Choose one of them with --alias.",
        )
    return alias


def served_version(text: str) -> int | None:
    """Return the version that Triton would read from a directory's name, if it is a clean one."""
    return int(text) if _VERSION.fullmatch(text) else None


def artifact_path(name: str) -> PurePosixPath:
    """Return a relative path found inside an artifact.

    Raises:
        ValidationFailed: It is absolute, or leaves its folder.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValidationFailed(
            f"the artifact names a file outside itself: {name!r}",
            hint="Log the model again; its files must lie inside its own folder.",
            kind="artifact",
        )
    return path
