"""Unary calls over plain sockets, from an event loop.

All calls share one connection to each address: what came together is answered together, and what
is asked in one turn of the loop is sent together.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from triton_client._addresses import Address, Addresses, Place
from triton_client._header_blocks import HeaderBlocks
from triton_client._http2 import Connection
from triton_client._sockets import CONNECT_SECONDS, TURN_SECONDS, tune, unsent
from triton_client._status import ConnectionBroken, StatusError, broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_client._http2_stream import Stream

__all__ = ["AsyncDirectChannel"]


class _Link:
    """A connection, and who waits for what on it."""

    __slots__ = (
        "_ends", "_flushing", "_loop", "_open", "_socket", "_timer", "_unsent", "_writing", "http",
    )  # fmt: skip

    def __init__(self, connected: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.http = Connection()
        self._loop = loop
        self._socket = connected
        self._open = True
        self._unsent: list[Any] = []
        self._flushing = self._writing = False
        self._ends: dict[Stream, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(connected, self._readable)

    @property
    def usable(self) -> bool:
        return self.http.last is None

    @property
    def full(self) -> bool:
        return len(self.http.streams) >= self.http.most_streams

    async def call(
        self, block: bytes, parts: Sequence[Any], end: float | None
    ) -> bytes | memoryview:
        """Make one call.

        Raises:
            StatusError: It failed at the server.
            TimeoutError: The deadline passed.
            ConnectionBroken: The connection broke.
        """
        now = self._loop.time()
        stream = self.http.open(block, None if end is None else max(1e-4, end - now), parts)
        stream.waiting = self._loop.create_future()
        if end is not None:
            self._expect(stream, end)
        self._soon()
        try:
            await stream.waiting
        except BaseException:
            self.http.cancel(stream)
            self._soon()
            raise
        finally:
            self._ends.pop(stream, None)
        return stream.answer()

    def close(self, why: str = "the client is closed") -> None:
        """Close the connection; whoever waits on it is told why."""
        self.http.last = self.http.last or why
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            if self._timer is not None:
                self._timer.cancel()
        self._hand_out()
        streams = list(self.http.streams.values())
        self.http.streams.clear()
        for stream in streams:
            if not stream.waiting.done():
                stream.waiting.set_exception(ConnectionBroken(why))

    def abandon(self) -> None:
        """Close the connection from wherever this is."""
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self.close)
        elif self._loop.is_closed():
            self._socket.close()
        else:
            self.close()

    def _readable(self) -> None:
        http = self.http
        try:
            room = http.buffer()
            http.received(self._socket.recv_into(room), room)
        except BlockingIOError:
            return
        except (OSError, ConnectionBroken) as error:
            self.close(str(error))
            return
        if http.finished:
            self._hand_out()
            if not self.usable and not http.streams:
                self.close()
        # A window may have opened, or something is to be acknowledged.
        self._soon()

    def _hand_out(self) -> None:
        for stream in self.http.finished:
            if not stream.waiting.done():
                stream.waiting.set_result(None)
        self.http.finished.clear()

    def _soon(self) -> None:
        if not self._flushing and not self._writing and self._open:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self._open:
            return
        pieces = self._unsent
        try:
            while pieces := pieces or self.http.outgoing():
                pieces = unsent(pieces, self._socket.sendmsg(pieces))
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._flush)
        except OSError as error:
            self.close(str(error))
        else:
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._socket)
        self._unsent = pieces

    # One timer for all: deadlines are many, and hardly one is ever missed.

    def _expect(self, stream: Stream, end: float) -> None:
        self._ends[stream] = end
        if self._timer is None or end < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(end, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now, following = self._loop.time() + 1e-3, inf
        for stream, end in self._ends.items():
            if end > now:
                following = min(following, end)
            elif not stream.waiting.done():
                stream.waiting.set_exception(TimeoutError())
        if following < inf:
            self._timer = self._loop.call_at(following, self._expire)


def _abandon(links: dict[Address, list[_Link]]) -> None:
    for link in [link for of_address in links.values() for link in of_address]:
        link.abandon()


class AsyncDirectChannel:
    """The connections of one event loop to one server.

    Args:
        place: Where the server is.
        loop: The event loop.
    """

    __slots__ = (
        "__weakref__", "_addresses", "_blocks", "_closed", "_connecting", "_links",
        "_loop",
    )  # fmt: skip

    def __init__(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        self._addresses = Addresses(place)
        self._loop = loop
        self._links: dict[Address, list[_Link]] = {}
        self._connecting: dict[Address, asyncio.Task[_Link]] = {}
        self._blocks = HeaderBlocks(place.authority)
        self._closed = False
        # A client that nobody closed ends quietly.
        weakref.finalize(self, _abandon, self._links)

    async def unary(
        self,
        method: str,
        parts: Sequence[Any],
        timeout: float | None,  # noqa: ASYNC109 - the server is told, too
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> bytes | memoryview:
        """Make one call and return the answer's message.

        Raises:
            StatusError: The call failed, there or on the way.
        """
        end = None if timeout is None else self._loop.time() + timeout
        try:
            turn = [] if self._addresses.stale else self._addresses.turn()
            link = self._link_to(turn[0]) if turn else None
            if link is None:
                link = await asyncio.wait_for(self._connected(turn), timeout)
            return await link.call(self._blocks.of(method, metadata), parts, end)
        except (OSError, ConnectionBroken) as error:
            # The timer may be early by what the clock cannot tell.
            overdue = end is not None and self._loop.time() >= end - 2e-3
            raise broken(error, overdue=overdue) from error

    def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        for task in self._connecting.values():
            task.cancel()
        for links in self._links.values():
            for link in links:
                link.close()
        self._links.clear()

    def _link_to(self, address: Address) -> _Link | None:
        links = self._links.get(address)
        if not links:
            return None
        for link in links:
            if link.usable and not link.full:
                return link
        usable = [link for link in links if link.usable]
        if len(usable) < len(links):
            self._addresses.broke()
            self._links[address] = usable
        return None

    async def _connected(self, addresses: list[Address]) -> _Link:
        """Return a connection to the first address that has or takes one; looked up where none."""
        if not addresses:
            host, port = self._addresses.host, self._addresses.port
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._addresses.learn(found)
            addresses = self._addresses.turn()
        problem: OSError | None = None
        for address in addresses:
            link = self._link_to(address)
            if link is not None:
                return link
            task = self._connecting.get(address)
            if task is None:
                seconds = CONNECT_SECONDS if address is addresses[-1] else TURN_SECONDS
                task = self._loop.create_task(self._connect(address, seconds))
                self._connecting[address] = task
                task.add_done_callback(partial(self._settled, address))
            try:
                # Others may wait for the same connection.
                return await asyncio.shield(task)
            except OSError as error:
                self._addresses.failed(address)
                problem = error
        raise StatusError("UNAVAILABLE", f"cannot connect: {problem}") from problem

    def _settled(self, address: Address, task: asyncio.Task[_Link]) -> None:
        self._connecting.pop(address, None)
        if not task.cancelled():
            task.exception()  # looked at, though whoever asked for it may have given up

    async def _connect(self, address: Address, seconds: float) -> _Link:
        connecting = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            connecting.setblocking(False)
            tune(connecting)
            async with asyncio.timeout(seconds):
                await self._loop.sock_connect(connecting, address.sockaddr)
        except BaseException:
            connecting.close()
            raise
        self._addresses.works(address)
        link = _Link(connecting, self._loop)
        if self._closed:
            link.close()
            raise ConnectionBroken("the client is closed")
        self._links.setdefault(address, []).append(link)
        return link
