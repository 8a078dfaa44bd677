"""What is known of one request: its id, deadline, body, and the model that answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import Scope

from stlab_api.problems import Problem

__all__ = ["SCOPE_KEY", "SMALL", "BufferBudget", "RequestContext", "context_in"]

SCOPE_KEY = "stlab_api.context"
SMALL = 64 * 1024
"""Bytes that every connection may hold: the number of connections bounds their sum."""


@dataclass(slots=True)
class BufferBudget:
    """The bytes of large bodies and answers that all connections together may hold."""

    limit: int
    held: int = 0


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
        if size <= 0:
            return
        if self.budget.held + size > self.budget.limit:
            raise Problem(
                503,
                "overloaded",
                "large requests and answers under way fill the memory they may; try again",
            )
        self.budget.held += size
        self.held += size

    def release(self, size: int) -> None:
        """Return bytes to the budget."""
        self.budget.held -= size
        self.held -= size


def context_in(scope: Scope) -> RequestContext:
    """Return the context that `RequestMiddleware` put into a scope."""
    context: RequestContext = scope[SCOPE_KEY]
    return context
