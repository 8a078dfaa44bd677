"""Unary calls over plain sockets, from any thread.

Every call has a connection to itself while it runs, so that the thread that calls is the one that
sends and receives: nothing is handed to another thread, and a thread that waits holds nobody up. A
connection that is done with its call waits for the next one.
"""

from __future__ import annotations

import contextlib
import select
import socket
import weakref
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from triton_client._addresses import Address, Addresses, Place
from triton_client._header_blocks import HeaderBlocks
from triton_client._http2 import Connection
from triton_client._sockets import CONNECT_SECONDS, TURN_SECONDS, tune, unsent
from triton_client._status import ConnectionBroken, StatusError, broken

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DirectChannel"]

_MOST_IDLE: Final = 64


class _Link:
    """A socket with the HTTP/2 connection on it."""

    __slots__ = ("address", "http", "poll", "socket")

    def __init__(self, connected: socket.socket, address: Address) -> None:
        self.socket = connected
        self.address = address
        self.http = Connection()
        self.poll = select.poll()
        self.poll.register(connected, select.POLLIN)

    def usable(self) -> bool:
        """Tell whether the connection still stands, taking what the server said meanwhile."""
        try:
            while self.poll.poll(0):
                self._receive()
        except (OSError, ConnectionBroken):
            return False
        return self.http.last is None

    def call(self, block: bytes, parts: Sequence[Any], end: float | None) -> bytes | memoryview:
        """Make one call.

        Raises:
            StatusError: It failed at the server.
            TimeoutError: The deadline passed.
            OSError: The connection broke, as with ``ConnectionBroken``.
        """
        http = self.http
        left = None if end is None else max(1e-4, end - monotonic())
        stream = http.open(block, left, parts)
        self.socket.settimeout(left)
        while not stream.ended:
            pieces = http.outgoing()
            if pieces:
                self._send(pieces, end)
                if http.blocked(stream):
                    continue
            self._wait(end)
            try:
                self._receive()
            except ConnectionBroken as error:
                if stream.number in http.streams:
                    raise
                # What came behind the answer is no reason to doubt it, but the last of its kind.
                http.last = str(error)
        http.finished.clear()
        return stream.answer()

    def close(self) -> None:
        # Wakes a thread that waits on it; closing alone does not.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _wait(self, end: float | None) -> None:
        if end is not None:
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)

    def _receive(self) -> None:
        room = self.http.buffer()
        self.http.received(self.socket.recv_into(room), room)

    def _send(self, pieces: list[Any], end: float | None) -> None:
        while pieces := unsent(pieces, self.socket.sendmsg(pieces)):
            self._wait(end)


def _close_sockets(links: set[_Link]) -> None:
    for link in links:
        link.socket.close()


class DirectChannel:
    """The connections of one process to one server.

    Args:
        place: Where the server is.
    """

    __slots__ = (
        "__weakref__", "_addresses", "_blocks", "_closed", "_idle", "_links",
    )  # fmt: skip

    def __init__(self, place: Place) -> None:
        self._addresses = Addresses(place)
        self._idle: dict[Address, deque[_Link]] = {}
        self._links: set[_Link] = set()
        self._blocks = HeaderBlocks(place.authority)
        self._closed = False
        # A client that nobody closed ends quietly. No shutdown: a fork shares the connections.
        weakref.finalize(self, _close_sockets, self._links)

    def unary(
        self,
        method: str,
        parts: Sequence[Any],
        timeout: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> bytes | memoryview:
        """Make one call and return the answer's message.

        Raises:
            StatusError: The call failed, there or on the way.
        """
        end = None if timeout is None else monotonic() + timeout
        try:
            link = self._take(end)
            done = False
            try:
                answer = link.call(self._blocks.of(method, metadata), parts, end)
                done = True
            except StatusError:
                done = True
                raise
            finally:
                self._give_back(link, whole=done)
        except (OSError, ConnectionBroken) as error:
            raise broken(error, overdue=end is not None and monotonic() >= end - 1e-3) from error
        return answer

    def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        for link in tuple(self._links):
            link.close()
        self._links.clear()
        self._idle.clear()

    def _take(self, end: float | None) -> _Link:
        if self._addresses.stale:
            host, port = self._addresses.host, self._addresses.port
            self._addresses.learn(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        problem: OSError | None = None
        addresses = self._addresses.turn()
        for address in addresses:
            link = self._idle_link(address)
            if link is not None:
                return link
            try:
                return self._connect(address, end, last=address is addresses[-1])
            except OSError as error:
                self._addresses.failed(address)
                problem = error
        if end is not None and monotonic() >= end:
            raise TimeoutError from problem
        raise StatusError("UNAVAILABLE", f"cannot connect: {problem}") from problem

    def _idle_link(self, address: Address) -> _Link | None:
        idle = self._idle.get(address)
        while idle:
            try:
                link = idle.pop()
            except IndexError:  # another thread took it
                return None
            if link.usable():
                return link
            self._addresses.broke()
            self._drop(link)
        return None

    def _connect(self, address: Address, end: float | None, *, last: bool) -> _Link:
        connecting = socket.socket(address.family, socket.SOCK_STREAM)
        seconds = CONNECT_SECONDS if last else TURN_SECONDS
        try:
            left = seconds if end is None else min(seconds, end - monotonic())
            connecting.settimeout(max(1e-3, left))
            tune(connecting)
            connecting.connect(address.sockaddr)
        except BaseException:
            connecting.close()
            raise
        self._addresses.works(address)
        link = _Link(connecting, address)
        self._links.add(link)
        if self._closed:
            self._drop(link)
            raise ConnectionBroken("the client is closed")
        return link

    def _give_back(self, link: _Link, *, whole: bool) -> None:
        idle = self._idle.setdefault(link.address, deque())
        if whole and link.http.last is None and len(idle) < _MOST_IDLE and not self._closed:
            idle.append(link)
        else:
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        self._links.discard(link)
        link.close()
