"""How a gRPC call ends, by name.

Source: gRPC's statuscodes.md.
"""

from __future__ import annotations

from typing import Final

__all__ = ["STATUS_NAMES", "ConnectionBroken", "StatusError", "broken"]

STATUS_NAMES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""The names of the status codes; a code is the position."""


class StatusError(Exception):
    """A call ended with a gRPC status other than OK.

    Attributes:
        code: The status code's name, such as ``UNAVAILABLE``.
        details: The status message.
    """

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


class ConnectionBroken(Exception):  # noqa: N818 - said of what happened, as those of errors.py
    """The connection cannot be used any more."""


def broken(error: Exception, *, overdue: bool) -> StatusError:
    """Return the status of a call that was not answered.

    Args:
        error: What happened; a ``TimeoutError`` may also be TCP's, of a peer that is gone.
        overdue: Whether the deadline has passed.
    """
    if isinstance(error, TimeoutError) and overdue:
        return StatusError("DEADLINE_EXCEEDED", "no answer before the deadline")
    return StatusError("UNAVAILABLE", f"the connection broke: {error or type(error).__name__}")
