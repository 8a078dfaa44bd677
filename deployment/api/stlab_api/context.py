"""What is known of one request: its id, deadline, body, and the model that answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import Request

from stlab_api.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = [
    "SCOPE_KEY",
    "SMALL",
    "BufferBudget",
    "RequestContext",
    "context_in",
    "path_of",
    "request_context",
]

SCOPE_KEY = "stlab_api.context"
SMALL = 64 * 1024
"""Bytes that every connection may hold: the number of connections bounds their sum."""


class BufferBudget:
    """The bytes of large bodies and answers that all connections together may hold.

    Args:
        limit: The most bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Reserve bytes, to be returned by `give`.

        Raises:
            Problem: 503: too much is held.
        """
        if self.held + size > self._limit:
            raise Problem(
                503,
                "overloaded",
                "large requests and answers under way fill the memory they may; try again",
            )
        self.held += size

    def give(self, size: int) -> None:
        """Return reserved bytes."""
        self.held -= size


@dataclass(slots=True)
class RequestContext:
    """One request.

    Attributes:
        headers: The request's headers; of a repeated one the last.
        request_id: The caller's ``X-Request-ID``, or a generated one.
        seconds: The deadline, from the request's begin.
        budget: The memory that all large bodies and answers share.
        model: The requested model, once it is known to be served.
        version: The version that answered.
        body: The body of a POST, whole and decompressed.
        held: The bytes that the request holds of the budget.
        has_place: Whether it counts as under way.
        status: The answer's status; 0 until it begins.
    """

    headers: Mapping[bytes, bytes]
    request_id: str
    seconds: float
    budget: BufferBudget
    model: str = ""
    version: str = ""
    body: bytes = b""
    held: int = 0
    has_place: bool = False
    status: int = 0
    began: float = field(default_factory=perf_counter)

    def header(self, name: bytes, default: str = "") -> str:
        """Return a header by its lowercase name."""
        value = self.headers.get(name)
        return default if value is None else value.decode("latin-1")

    def seconds_left(self) -> float:
        """Return the seconds until the deadline."""
        return self.seconds - self.seconds_taken()

    def seconds_taken(self) -> float:
        """Return the seconds since the request's begin."""
        return perf_counter() - self.began

    def hold(self, size: int) -> None:
        """Reserve bytes of the budget; nothing for a size below zero.

        Raises:
            Problem: 503: too much is held.
        """
        if size > 0:
            self.budget.take(size)
            self.held += size

    def release(self, size: int) -> None:
        """Return bytes to the budget."""
        self.budget.give(size)
        self.held -= size


def context_in(scope: Scope) -> RequestContext:
    """Return the context that `RequestMiddleware` put into a scope."""
    context: RequestContext = scope[SCOPE_KEY]
    return context


async def request_context(request: Request) -> RequestContext:
    """Return the context of a request, as a dependency of an endpoint."""
    return context_in(request.scope)


def path_of(scope: Scope) -> str:
    """Return a request's path below the prefix of a proxy."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
