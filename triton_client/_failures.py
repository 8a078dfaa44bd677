"""From a gRPC status to an error of this package, without any I/O.

A status code decides, except for UNAVAILABLE: Triton uses it for a full queue, an expired queue
timeout, a model that is not ready and a restricted protocol, and gRPC for a broken connection.
Only the text distinguishes them. The texts are those of Triton's ``dynamic_batch_scheduler``,
``model_repository_manager``, ``server`` and ``grpc_handler`` sources; any other text counts as
a broken connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from triton_client import errors
from triton_client.errors import TritonClientError

__all__ = ["NOT_POLLED", "Failure", "Place", "classify", "classify_text", "is_withheld"]

E = TypeVar("E", bound=TritonClientError)

_BY_CODE: Final[dict[str, type[TritonClientError]]] = {
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
    "INVALID_ARGUMENT": errors.InvalidInput,
    "OUT_OF_RANGE": errors.InvalidInput,
    "NOT_FOUND": errors.ModelNotFound,
    "UNAUTHENTICATED": errors.PermissionDenied,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "UNAVAILABLE": errors.Unavailable,
    "CANCELLED": errors.Unavailable,
}
_UNAVAILABLE_TEXTS: Final[tuple[tuple[str, type[TritonClientError]], ...]] = (
    ("Exceeds maximum queue size", errors.Overloaded),
    ("Request timeout expired", errors.DeadlineExceeded),
    ("is not at ready state", errors.NotReady),
    ("has no available versions", errors.NotReady),
    ("Server not ready", errors.NotReady),
    ("Server is stopping", errors.NotReady),
    ("protocol is restricted", errors.PermissionDenied),
    ("explicit model load / unload is not allowed", errors.ServerError),
)
# Texts of errors whose code says too little, and of errors inside of responses.
NOT_POLLED: Final = "failed to poll from model repository"
"""Triton's message for a model that is missing, and for one that it cannot read."""
_UNKNOWN_MODEL: Final = re.compile(
    r"Request for unknown model|requested model '.*' is not available"
    r"|requested model version is not available"
)
_INVALID: Final = re.compile(
    r"unexpected (shape for input|inference (input|output)|number of string elements)"
    r"|inference request batch-size must be|inference input '.*' data-type is"
    r"|expected \d+ inputs but got \d+ inputs|version should be an integral value"
)
# How gRPC words REFUSED_STREAM, a stream beyond GOAWAY's last one, and a call that found no
# connection to be sent on. Where another cause comes first, the call may have been processed. A
# GOAWAY with another code than NO_ERROR and ENHANCE_YOUR_CALM may well be the call's own fault.
_UNPROCESSED: Final = re.compile(
    r"(Stream removed \()?((RST_STREAM \()?Received RST_STREAM with error code 7\b"
    r"|GOAWAY received; Error code: (0|11);)|(.*: )?subchannel lost all connections$"
)
_TOO_LARGE: Final = re.compile(r"CLIENT: Received message|Decompressed message")


class Place(NamedTuple):
    """What a call goes to, for its errors; a model and a version are empty where it has none."""

    server: str
    model: str = ""
    version: str = ""

    def error(self, kind: type[E], message: str) -> E:
        """Return an error of a call that goes there."""
        return kind(message, server=self.server, model=self.model, version=self.version)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call was.

    Attributes:
        error: The error to raise.
        transient: The connection failed, so another attempt may well succeed.
        unprocessed: The peer says that it never processed the call.
    """

    error: TritonClientError
    transient: bool
    unprocessed: bool = False


def classify(code: str, details: str, place: Place) -> Failure:
    """Return what a gRPC status means: a code's name, such as ``UNAVAILABLE``, and its message."""
    kind = _BY_CODE.get(code, errors.ServerError)
    if code == "INVALID_ARGUMENT" and _UNKNOWN_MODEL.search(details):
        kind = errors.ModelNotFound
    transient = unprocessed = False
    if code == "UNAVAILABLE":
        kind = _known(details) or errors.Unavailable
        transient = kind is errors.Unavailable
        unprocessed = transient and bool(_UNPROCESSED.match(details))
    elif code == "RESOURCE_EXHAUSTED" and "message larger than max" in details:
        # A message that is too large stays too large.
        kind = errors.InvalidInput
        if _TOO_LARGE.search(details):
            kind = errors.ServerError
            details = f"the answer is larger than max_response_bytes allows: {details}"
    elif code == "RESOURCE_EXHAUSTED" and "metadata size exceeds" in details:
        kind = errors.ServerError  # and so do headers
    message = details or f"the server answered {code} without a reason"
    return Failure(place.error(kind, message), transient, unprocessed)


def classify_text(message: str, place: Place) -> TritonClientError:
    """Return what an error inside a response means, which has no status code."""
    kind = errors.ModelNotFound if _UNKNOWN_MODEL.search(message) else _known(message)
    if kind is None:
        kind = errors.InvalidInput if _INVALID.search(message) else errors.ServerError
    return place.error(kind, message)


def is_withheld(error: TritonClientError) -> bool:
    """Whether a server does not show a model's config, or has none; its model can be used."""
    code = getattr(error.__cause__, "code", None)
    # Servers other than Triton do not implement the call.
    is_unimplemented = code is not None and code().name == "UNIMPLEMENTED"
    return is_unimplemented or isinstance(error, errors.PermissionDenied)


def _known(details: str) -> type[TritonClientError] | None:
    return next((kind for text, kind in _UNAVAILABLE_TEXTS if text in details), None)
