"""Errors as RFC 9457 problem details: ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from exporter.errors import NotFoundError, StlabError, UnavailableError
from exporter.text.redaction import redact
from triton_client.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    NotReady,
    Overloaded,
    TritonClientError,
    Unavailable,
)

__all__ = [
    "PROBLEM_SCHEMA",
    "Problem",
    "arrays_too_large",
    "invalid_at",
    "misfit",
    "pointer_of",
    "problem_of",
    "problem_responses",
]

MEDIA_TYPE = "application/problem+json"
_TEXT = {"type": "string"}
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {**_TEXT, "examples": ["urn:stlab:problem:invalid-input"]},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "request_id": _TEXT,
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"pointer": _TEXT, "detail": _TEXT}},
        },
    },
}
"""What `Problem.response` writes, as the component ``Problem`` of the OpenAPI document."""
# Texts repeat what a caller sent, such as a name, up to this length.
_LONGEST = 500


class Problem(Exception):  # noqa: N818 - the standard's word
    """What went wrong, in the words of RFC 9457.

    Args:
        status: The HTTP status.
        kind: The last part of the problem's type, ``urn:stlab:problem:<kind>``.
        detail: One sentence for the caller: what is wrong and what to do.
        errors: Where in the request, each with ``pointer`` (RFC 6901) and ``detail``.
        headers: Further headers of the response; a 503 always has ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = {**({"Retry-After": "1"} if status == 503 else {}), **(headers or {})}

    def response(self, request_id: str = "") -> Response:
        """Return the response."""
        body: dict[str, Any] = {
            "type": f"urn:stlab:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": _clipped(self.detail),
        }
        if request_id:
            body["request_id"] = request_id
        if self.errors:
            body["errors"] = [
                {name: _clipped(words) for name, words in error.items()} for error in self.errors
            ]
        return Response(
            orjson.dumps(body),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


_STATUS: tuple[tuple[tuple[type[Exception], ...], int, str], ...] = (
    ((DeadlineExceeded, TimeoutError), 504, "timeout"),
    ((Overloaded,), 503, "overloaded"),
    ((NotReady, ModelNotFound, NotFoundError), 503, "not-ready"),
    ((Unavailable, UnavailableError), 503, "unavailable"),
    ((InvalidInput,), 422, "invalid-input"),
    ((TritonClientError,), 502, "server"),
    ((StlabError,), 503, "not-ready"),
)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of an endpoint that may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "Problem", "content": content} for status in statuses}


def problem_of(error: Exception) -> Problem:
    """Return the problem of an error; of an unexpected one the caller sees no text."""
    if isinstance(error, Problem):
        return error
    for kinds, status, word in _STATUS:
        if isinstance(error, kinds):
            detail = redact(str(error)) or "no answer within the deadline"
            return Problem(status, word, detail)
    return Problem(500, "unexpected", "the service failed; its log has the request's id")


def pointer_of(place: tuple[int | str, ...]) -> str:
    """Return a place in a JSON document as a pointer (RFC 6901)."""
    return "".join(f"/{str(p).replace('~', '~0').replace('/', '~1')}" for p in place)


def invalid_at(place: tuple[int | str, ...], what: str) -> Problem:
    """Return what is wrong at a place of a request."""
    pointer = pointer_of(place)
    return Problem(
        422,
        "invalid-input",
        f"{_clipped(pointer) or 'the request'}: {what}",
        errors=[{"pointer": pointer, "detail": what}],
    )


def misfit(name: str, what: str) -> Problem:
    """Return what is wrong with an input."""
    return Problem(
        422,
        "invalid-input",
        f"input '{_clipped(name)}' does not fit the model: {what}",
        errors=[{"pointer": pointer_of(("inputs", name)), "detail": what}],
    )


def arrays_too_large(max_bytes: int) -> Problem:
    """Return the refusal of arrays above a limit."""
    return Problem(413, "too-large", f"the arrays exceed {max_bytes} bytes")


def _clipped(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
