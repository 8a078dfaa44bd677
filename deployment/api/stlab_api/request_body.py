"""Reads a request's body whole: within its deadline, a size and a share of memory, decompressed."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from stlab_api.context import SMALL, RequestContext
from stlab_api.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive

__all__ = ["read_body", "too_large"]

_GZIP = frozenset({"gzip", "x-gzip"})
_WINDOW = 16 + zlib.MAX_WBITS  # gzip's header alone is accepted
_INFLATED_AT_ONCE = 1024 * 1024


class _Buffer:
    """The parts of one body, with what they hold of the memory budget."""

    def __init__(self, context: RequestContext, limit: int) -> None:
        self._context = context
        self._limit = limit
        self._size = 0
        self._held = 0
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise too_large(self._limit)
        beyond = self._size - SMALL - self._held
        if beyond > 0:
            self._context.hold(beyond)
            self._held += beyond
        self._parts.append(part)

    def content(self) -> bytes:
        return b"".join(self._parts)

    def release(self) -> None:
        self._context.release(self._held)


async def read_body(receive: Receive, context: RequestContext, limit: int) -> None:
    """Read the body into the context, which holds its bytes of the memory budget, also on failure.

    Args:
        receive: The ASGI channel.
        context: The request.
        limit: The most bytes, both compressed and decompressed.

    Raises:
        Problem: 400: it is not gzip. 408: it is late. 413: it is too large. 415: its encoding is
            unknown. 503: other bodies fill the memory.
        ClientDisconnect: The caller disconnected.
    """
    encoding = context.header(b"content-encoding").strip().lower()
    if encoding not in _GZIP and encoding not in {"", "identity"}:
        raise Problem(
            415,
            "unknown-encoding",
            "a body is sent as it is or with Content-Encoding: gzip",
            headers={"Accept-Encoding": "gzip, identity"},
        )
    received = _Buffer(context, limit)
    try:
        async with asyncio.timeout(context.seconds_left()):
            await _receive(receive, received)
    except TimeoutError as error:
        raise Problem(
            408,
            "request-timeout",
            "the body did not arrive within the deadline",
            headers={"Connection": "close"},
        ) from error
    if encoding in _GZIP:
        inflated = _Buffer(context, limit)
        await _inflate(received.content(), inflated)
        received.release()
        received = inflated
    context.body = received.content()


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


async def _inflate(rest: bytes, into: _Buffer) -> None:
    """Decompress step by step, so that neither a bomb nor a large body delays other requests."""
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
