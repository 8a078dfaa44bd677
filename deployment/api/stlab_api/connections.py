"""HTTP connections with deadlines and limits, for uvicorn's setting ``http``.

uvicorn closes a connection that is idle after an answer. It has no limit for a request's head that
arrives slowly or never ends, nor for a peer that does not read its answer.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stlab_api.problems import Problem
from stlab_api.settings import Settings

__all__ = ["Connection", "bounded_connections"]

# nginx accepts 32 KiB, Apache 8 KiB a line.
_MOST_HEAD_BYTES = 64 * 1024
# For files, the registry and Triton.
_OTHER_DESCRIPTORS = 256


def _descriptors_for(connections: int) -> int:
    """Raise the limit of open files as far as allowed, and return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, soft - min(_OTHER_DESCRIPTORS, soft // 2)))


def bounded_connections(settings: Settings) -> Any:
    """Return uvicorn's protocol with the limits of the settings."""
    return partial(Connection, settings, _descriptors_for(settings.max_connections))


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits.

    It keeps its own account of requests, by the callbacks of asyncio and of the HTTP parser. Of
    uvicorn's state it reads one thing: whether the application has begun to answer.

    Attributes:
        most_connections: The most connections; beyond them the one is closed that has waited
            longest for its peer.
        header_seconds: How long a request's head may take, from the connection's begin.
        write_seconds: How long the peer may read nothing of an answer, and how long it may take to
            send the rest of a body that was answered before its end.
        requests: The number of requests so far.
        since: When it last began to wait for its peer, on the monotonic clock.
    """

    def __init__(
        self, settings: Settings, most_connections: int, *arguments: Any, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.most_connections = most_connections
        self.header_seconds = settings.header_seconds
        self.write_seconds = settings.send_seconds
        self.requests = 0
        self._answered = 0
        self.since = monotonic()
        self._in_head = False
        self._in_body = False
        self._write_paused = False
        # Bytes of heads, trailers and between chunks, unless the last piece held anything else.
        self._head_bytes = 0
        self._past_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; close another connection if there are too many."""
        super().connection_made(transport)
        self._await_head(self.header_seconds)
        if len(self.connections) > self.most_connections:
            others = [c for c in self.connections if isinstance(c, Connection) and c is not self]
            waiting = [other for other in others if other.waits]
            (min(waiting, key=lambda c: c.since) if waiting else self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; limit the time of an incomplete head, and the bytes of heads and trailers."""
        self._past_head = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._head_bytes = 0 if self._past_head else self._head_bytes + len(data)
        if self._head_bytes > _MOST_HEAD_BYTES:
            if self._in_head or self.busy:
                self._refuse(431, "headers-too-large", "the request's head or trailer is too large")
            else:
                self._close()
        elif self._in_head or not self.busy:
            self._await_head(self.header_seconds)
        else:
            self._stop_head_timer()

    def on_message_begin(self) -> None:
        """Begin a request: the last answer has arrived, unless writing is paused."""
        self._in_head = True
        if not self._write_paused:
            self._stop_write_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header; ignore those of a trailer."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._in_head, self._in_body, self._past_head = False, True, True
        self.since = monotonic()
        super().on_headers_complete()
        self.requests += 1

    def on_body(self, body: bytes) -> None:
        """Read a part of the body."""
        self._past_head = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body; the next head has its own deadline."""
        self._in_body, self._past_head = False, True
        if not self.busy:
            self._stop_head_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End a request; limit the time for what the peer has not sent or read yet."""
        self._answered += 1
        super().on_response_complete()
        self.since = monotonic()
        if self._in_body and not self.busy and not self.transport.is_closing():
            self._await_head(self.write_seconds)
        if self.transport.get_write_buffer_size():
            self._await_writing()

    def pause_writing(self) -> None:
        """Wait for the peer to read, within a deadline."""
        self._write_paused = True
        super().pause_writing()
        self._await_writing()

    def resume_writing(self) -> None:
        """Go on: the peer has read."""
        self._write_paused = False
        super().resume_writing()
        self._stop_write_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP with a problem."""
        self._refuse(400, "malformed", msg)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.requests > self._answered

    @property
    def waits(self) -> bool:
        """Whether the peer is to send or to read something."""
        return not self.busy or self._in_body or self._write_paused

    def _await_head(self, seconds: float) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.busy:
            self._await_head(self.header_seconds)
        elif self._in_head:
            self._refuse(408, "request-timeout", "the request's head did not arrive in time")
        else:
            self._close()

    def _await_writing(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_seconds, self._write_is_late)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _write_is_late(self) -> None:
        self._write_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: int, kind: str, detail: str) -> None:
        if self.busy and self.cycle.response_started:  # do not mix two answers
            self._close()
            return
        response = Problem(status, kind, detail, headers={"Connection": "close"}).response()
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()]
        head += [b"%s: %s\r\n" % line for line in response.raw_headers]
        self.transport.write(b"".join([*head, b"\r\n", bytes(response.body)]))
        self._close()

    def _close(self) -> None:
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._await_writing()
