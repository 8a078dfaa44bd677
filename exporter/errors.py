"""The errors that the exporter raises on purpose.

```
StlabError                      1  unexpected
├── UsageError                  2  the command or a setting is invalid
├── ValidationFailedError       3  the model or its conversion failed a check
├── NotFoundError               4  no such model, version, alias or file
├── ConflictError               5  the current state does not allow the step
└── UnavailableError            6  a registry, a server or a store does not answer
    └── OutcomeUnknownError     6  … while the alias was moved
```

A message says in one sentence what is wrong; a hint says what to do about it. Passwords are cut out
of both. Errors of libraries are translated where the library is called, with the original as
``__cause__``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from exporter.text.redaction import redact

__all__ = [
    "ConflictError",
    "NotFoundError",
    "OutcomeUnknownError",
    "StlabError",
    "UnavailableError",
    "UsageError",
    "ValidationFailedError",
    "causes",
    "error_of",
    "first_line",
    "resource_error",
]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class StlabError(Exception):
    """An error with an exit code, a machine-readable kind, and a hint with the next command."""

    exit_code: ClassVar[int] = 1
    default_kind: ClassVar[str] = "unexpected"

    def __init__(self, message: str, *, hint: str = "", kind: str | None = None) -> None:
        self.message = redact(message)
        self.hint = redact(hint)
        super().__init__(self.message)
        self.kind = kind or self.default_kind

    def as_dict(self) -> dict[str, str]:
        """Return the ``error`` object of ``--json``."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


class UsageError(StlabError):
    """The command or a setting is invalid."""

    exit_code = 2
    default_kind = "usage"


class ValidationFailedError(StlabError):
    """The model or its conversion failed a check; no alias has moved."""

    exit_code = 3
    default_kind = "validation"


class NotFoundError(StlabError):
    """A model, version, alias or file does not exist."""

    exit_code = 4
    default_kind = "not_found"


class ConflictError(StlabError):
    """The current state does not allow the step: another run, another interface, no evidence."""

    exit_code = 5
    default_kind = "conflict"


class UnavailableError(StlabError):
    """A registry, a server or a store cannot be reached, or the connection was lost."""

    exit_code = 6
    default_kind = "unavailable"


class OutcomeUnknownError(UnavailableError):
    """The connection to the registry was lost while an alias was moved: it may have moved."""

    default_kind = "outcome_unknown"


def resource_error(lacking: str) -> UnavailableError:
    """Return the error for a resource that this machine ran out of."""
    return UnavailableError(
        f"this machine ran out of what the command needs: {lacking}",
        hint="Raise that limit (ulimit -a) or free the disk, then run the same command again.",
    )


def error_of(exit_code: int, kind: str, message: str, hint: str) -> StlabError:
    """Return the error that another process described by its exit code and `as_dict`."""
    kinds = (UsageError, ValidationFailedError, NotFoundError, ConflictError, UnavailableError)
    found = {error.exit_code: error for error in kinds}.get(exit_code, StlabError)
    return found(message, hint=hint, kind=kind)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from or while handling, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error's cause, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
