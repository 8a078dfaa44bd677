"""Checks of names from outside, made before any of them becomes a path."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from exporter.errors import NotFoundError, UsageError, ValidationFailedError

__all__ = [
    "ALIASES",
    "ALIAS_ORDER",
    "ARCHIVED",
    "DEFAULT_REPOSITORY",
    "DEFAULT_TRACKING_URI",
    "alias_name",
    "artifact_path",
    "model_name",
    "served_version",
]

ALIASES = ("dev", "staging", "prod")
"""The aliases that an export may move."""

ARCHIVED = "archived"
"""The alias of the previous ``prod`` version, to which a rollback returns."""

ALIAS_ORDER = (*ALIASES, ARCHIVED)
"""All aliases, in the order that a version passes through."""

DEFAULT_REPOSITORY = "model_repository"
"""The model repository where none is given: a folder of the working directory."""

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
"""The MLflow registry where none is given: a file of the working directory."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
# Triton reads a version directory with stoll(), so that "3.tmp" would be version 3.
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_MOST_PATH = 1024
_MOST_PART = 255


def model_name(name: str) -> str:
    """Return a model name, if it is safe as the name of a directory.

    Raises:
        UsageError: It has characters other than letters, digits, ``_``, ``-`` and ``.``.
    """
    if not _MODEL.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a model in a Triton repository",
            hint="Use letters, digits, '_', '-' and '.', beginning with a letter or a digit.",
        )
    return name


def alias_name(alias: str) -> str:
    """Return an alias, if a command may move it.

    Raises:
        NotFoundError: The alias does not exist.
    """
    if alias not in ALIASES:
        raise NotFoundError(
            f"the alias {alias!r} is unknown; the aliases are: {', '.join(ALIASES)}",
            hint="Choose one of them with --alias.",
        )
    return alias


def served_version(text: str) -> int | None:
    """Return the version that Triton reads from a directory's name; None for any other name."""
    return int(text) if _VERSION.fullmatch(text) else None


def artifact_path(name: str) -> PurePosixPath:
    """Return a path from an artifact, if it is relative and stays inside.

    Raises:
        ValidationFailedError: It is absolute, or leaves its folder.
    """
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts
    # What every file system can hold, and every terminal show.
    valid = 0 < len(name) <= _MOST_PATH and "\\" not in name and name.isprintable()
    if leaves or not valid or any(len(part.encode()) > _MOST_PART for part in path.parts):
        raise ValidationFailedError(
            f"the artifact refers to a file outside itself, or to an invalid name: {name[:200]!r}",
            hint="Log the model again; its files must be inside its own folder.",
            kind="artifact",
        )
    return path
