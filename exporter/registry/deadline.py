"""Closes the connection of a request whose deadline has passed, whatever the request waits for.

requests and urllib3 time out single reads, so a server that sends a byte now and then is waited for
without end. Here a thread shuts the socket down, which ends every wait on it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from exporter.registry.bounds import SLOWEST, Exchange

__all__ = ["Deadline", "DeadlineAdapter", "DeadlinePassedError", "current_deadline"]


class DeadlinePassedError(Exception):
    """A connection is opened for a request whose deadline has passed."""


class Deadline:
    """Closes the connection of one request once its time is over, and ``passed`` is set.

    The bytes of the request's body extend the deadline of a transfer.
    """

    def __init__(self, exchange: Exchange, sent: int) -> None:
        self._exchange = exchange
        self._moved = sent
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.passed = False
        threading.Thread(target=self._run, name="stlab-registry-deadline", daemon=True).start()

    def attach(self, connection: socket.socket | None) -> None:
        """Watch the connection that the request is sent on.

        A copy of the descriptor is kept, since TLS detaches the socket's own.

        Raises:
            DeadlinePassedError: The time is over.
        """
        with self._lock:
            self._drop()
            if connection is not None and not self.passed:
                self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        if self.passed:
            raise DeadlinePassedError

    def extend(self, size: int) -> None:
        """Count bytes of a transfer, which extend its deadline."""
        self._moved += size

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        with self._lock:
            self._drop()

    def _seconds_left(self) -> float:
        allowed = self._exchange.seconds
        if self._exchange.transfer:
            allowed += self._moved / SLOWEST
        return allowed - (time.monotonic() - self._began)

    def _run(self) -> None:
        while (left := self._seconds_left()) > 0:
            if self._ended.wait(left):
                return
        with self._lock:
            self.passed = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


current_deadline: ContextVar[Deadline | None] = ContextVar("current_deadline", default=None)
"""The deadline of the request that this thread sends."""


def _attach(connection: socket.socket | None) -> None:
    deadline = current_deadline.get()
    if deadline is not None:
        deadline.attach(connection)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _attach(made)
        return made

    def request(self, *arguments: Any, **named: Any) -> None:
        _attach(self.sock)
        super().request(*arguments, **named)


# urllib3's TLS connection derives from its plain one, so `_Connection` goes in between.
class _TLSConnection(HTTPSConnection, _Connection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _Pool, "https": _TLSPool}


class DeadlineAdapter(HTTPAdapter):
    """Opens connections that `current_deadline` closes."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Create the pools, of connections with a deadline."""
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
        """Return the pools for a proxy, of connections with a deadline."""
        manager = super().proxy_manager_for(*arguments, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager
