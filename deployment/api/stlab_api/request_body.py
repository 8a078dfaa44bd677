"""Reads a request's body whole: within its deadline, a size and a share of memory, decompressed."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from stlab_api.context import SMALL, RequestContext
from stlab_api.problems import Problem

__all__ = ["read_body", "too_large"]

_GZIP = frozenset({"gzip", "x-gzip"})
_WINDOW = 16 + zlib.MAX_WBITS  # gzip's header alone is accepted
_INFLATED_AT_ONCE = 1024 * 1024


async def read_body(receive: Receive, context: RequestContext, limit: int) -> None:
    """Read the body into the context, which holds its bytes of the memory budget, also on failure.

    The limit of bytes is that of the body both compressed and decompressed.

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
    try:
        async with asyncio.timeout(context.seconds_left()):
            context.body = await _received(receive, context, limit)
    except TimeoutError as error:
        raise Problem(
            408,
            "request-timeout",
            "the body did not arrive within the deadline",
            headers={"Connection": "close"},
        ) from error
    if encoding in _GZIP:
        compressed = context.held
        context.body = await _inflated(context.body, context, limit)
        context.release(compressed)


def too_large(limit: int) -> Problem:
    """Return the refusal of a body above a limit."""
    return Problem(413, "too-large", f"a body may have {limit} bytes at most")


def _grown(size: int, part: bytes, context: RequestContext, limit: int) -> int:
    """Return the size with another part; the context holds what is beyond every connection's."""
    size += len(part)
    if size > limit:
        raise too_large(limit)
    context.hold(min(len(part), size - SMALL))
    return size


async def _received(receive: Receive, context: RequestContext, limit: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size = _grown(size, parts[-1], context, limit)
        more = message.get("more_body", False)
    return b"".join(parts)


async def _inflated(rest: bytes, context: RequestContext, limit: int) -> bytes:
    """Decompress step by step, so that neither a bomb nor a large body delays other requests."""
    inflater = zlib.decompressobj(_WINDOW)
    parts: list[bytes] = []
    size = 0
    while not inflater.eof:
        try:
            part = inflater.decompress(rest, _INFLATED_AT_ONCE)
        except zlib.error as error:
            raise Problem(400, "malformed", "the body is not gzip") from error
        rest = inflater.unconsumed_tail
        if part:
            parts.append(part)
            size = _grown(size, part, context, limit)
            await asyncio.sleep(0)
        elif not inflater.eof:
            raise Problem(400, "malformed", "the body's gzip ends too early")
    # A body of thousands of empty members would take far longer than its size.
    if inflater.unused_data:
        raise Problem(400, "malformed", "the body has more than one gzip member")
    return b"".join(parts)
