"""Reads a request's body whole: within its deadline, a size and a share of memory, unzipped."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from stlab_api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive

__all__ = ["SMALL", "BufferBudget", "read_body", "replayed", "too_large"]

SMALL = 64 * 1024
"""Bytes that every connection may hold: the number of connections bounds their sum."""

_GZIP = frozenset({"gzip", "x-gzip"})
_WINDOW = 16 + zlib.MAX_WBITS  # gzip's header alone is accepted
_INFLATED_AT_ONCE = 1024 * 1024


class BufferBudget:
    """The bytes of large bodies and answers that all connections together may hold.

    Args:
        limit: The most bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> int:
        """Reserve bytes, and return how many `give` must get back.

        Raises:
            Problem: 503: too much is held.
        """
        if self.held + size > self._limit:
            raise Problem(
                503,
                "overloaded",
                "large requests and answers under way fill the memory they may; try again",
                headers={"Retry-After": "1"},
            )
        self.held += size
        return size

    def give(self, size: int) -> None:
        """Return reserved bytes."""
        self.held -= size


class _Buffer:
    """The parts of one body, with what they hold of the budget."""

    def __init__(self, budget: BufferBudget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self._size = 0
        self.parts: list[bytes] = []
        self.held = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise too_large(self._limit)
        beyond = self._size - SMALL - self.held
        if beyond > 0:
            self.held += self._budget.take(beyond)
        self.parts.append(part)

    def release(self) -> None:
        self._budget.give(self.held)
        self.parts, self.held = [], 0


async def read_body(
    receive: Receive,
    header: Callable[[bytes], str],
    *,
    seconds: float,
    limit: int,
    budget: BufferBudget,
) -> tuple[bytes, int]:
    """Return a body as it was before compression, and the bytes that it holds of the budget.

    Args:
        receive: Where it comes from.
        header: Returns a header by its lowercase name; empty if it is missing.
        seconds: The deadline.
        limit: The most bytes, both compressed and not.
        budget: What all connections share.

    Raises:
        Problem: 400: it is no gzip. 408: it is late. 413: it is too large. 415: its encoding is
            unknown. 503: other bodies fill the memory.
        ClientDisconnect: The caller went away.
    """
    encoding = header(b"content-encoding").strip().lower()
    if encoding not in _GZIP and encoding not in {"", "identity"}:
        raise Problem(
            415,
            "unknown-encoding",
            "a body is sent as it is or with Content-Encoding: gzip",
            headers={"Accept-Encoding": "gzip, identity"},
        )
    received = _Buffer(budget, limit)
    try:
        async with asyncio.timeout(seconds):
            await _receive(receive, received)
        if encoding not in _GZIP:
            return b"".join(received.parts), received.held
        inflated = _Buffer(budget, limit)
        try:
            await _inflate(received, inflated)
        except BaseException:
            inflated.release()
            raise
    except TimeoutError as error:
        received.release()
        raise Problem(
            408,
            "request-timeout",
            "the body did not arrive within the deadline",
            headers={"Connection": "close"},
        ) from error
    except BaseException:
        received.release()
        raise
    received.release()
    return b"".join(inflated.parts), inflated.held


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives the whole body once, then what the server says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def too_large(limit: int) -> Problem:
    """Return the refusal of a body above a limit."""
    return Problem(413, "too-large", f"a body may have {limit} bytes at most")


async def _receive(receive: Receive, into: _Buffer) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if part := message.get("body", b""):
            into.add(part)
        more = message.get("more_body", False)


async def _inflate(received: _Buffer, into: _Buffer) -> None:
    """Unzip step by step, so that neither a bomb nor a large body holds up other requests."""
    rest = b"".join(received.parts)
    inflater = zlib.decompressobj(_WINDOW)
    while not inflater.eof:
        try:
            part = inflater.decompress(rest, _INFLATED_AT_ONCE)
        except zlib.error as error:
            raise Problem(400, "malformed", "the body is not gzip") from error
        rest = inflater.unconsumed_tail
        if part:
            into.add(part)
            await asyncio.sleep(0)
        elif not inflater.eof:
            raise Problem(400, "malformed", "the body's gzip ends too early")
    # A body of thousands of empty members would take far longer than its size.
    if inflater.unused_data:
        raise Problem(400, "malformed", "the body has more than one gzip member")
