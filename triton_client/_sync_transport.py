"""Sends calls and repeats them where that is safe, from any thread and in any process."""

from __future__ import annotations

from collections.abc import Iterator
from os import getpid
from time import sleep
from typing import TypeVar

import grpc

from triton_client._channel import ChannelSettings
from triton_client._deadline import Deadline
from triton_client._hooks import Hooks
from triton_client._requests import Call
from triton_client._retry import Attempts
from triton_client._transport import Connection, TransportBase

__all__ = ["Transport"]

T = TypeVar("T")


class Transport(TransportBase):
    """One server's channel, for threads.

    A channel does not survive a fork, so a child process opens one of its own and leaves its
    parent's alone; there is no lock that a fork could leave locked.
    """

    __slots__ = ("_connections",)

    def __init__(self, settings: ChannelSettings, retries: int, hooks: Hooks | None = None) -> None:
        super().__init__(settings, retries, hooks, aio=False)
        self._connections: dict[int, Connection] = {}

    def run(self, call: Call[T], deadline: Deadline, *, retry: bool = True) -> T:
        """Send a call and return what its response says.

        Raises:
            TritonClientError: The call failed.
            RuntimeError: The client is closed.
        """
        attempts = None
        with self._hooked(call):
            while True:
                method = self._connection().unary(call.method)
                left, metadata = self._terms(call, deadline)
                try:
                    answer = method(call.request, timeout=left, metadata=metadata)
                except grpc.RpcError as error:
                    attempts = attempts or Attempts(deadline, retry)
                    pause = self._pause(call, error, attempts)
                else:
                    self._connected = True
                    self._retries.succeeded()
                    return call.read(answer)
                sleep(pause)

    def stream(self, call: Call[T], deadline: Deadline) -> Iterator[T]:
        """Send a call and yield what each of its responses says; leaving early cancels it.

        It is sent when the first response is wanted, and again only where the server never
        processed it.

        Raises:
            TritonClientError: The call failed.
            RuntimeError: The client is closed.
        """
        attempts, answered = Attempts(deadline, repeatable=False), False
        with self._hooked(call):
            while True:
                # On the wire, a stream of one request is that request.
                method = self._connection().channel.unary_stream(call.method)
                left, metadata = self._terms(call, deadline)
                # No triton_grpc_error in the metadata, which gives errors a status code: a
                # decoupled Python model that ends its answers after an error then ends the server
                # (24.10).
                answers = method(call.request, timeout=left, metadata=metadata)
                try:
                    for answer in answers:
                        answered = self._connected = True
                        yield call.read(answer)
                except grpc.RpcError as error:
                    if answered:
                        raise call.failed(error).error from error
                    pause = self._pause(call, error, attempts)
                else:
                    return
                finally:
                    answers.cancel()
                sleep(pause)

    def _pause(self, call: Call[T], error: grpc.RpcError, attempts: Attempts) -> float:
        """Return the seconds to wait before the next attempt; raises the error if there is none."""
        failure = call.failed(error)
        pause = self._retries.pause(failure, attempts)
        if pause is not None:
            return pause
        unreached = failure.transient and not self._connected
        if unreached and self._http_port.answers(attempts.deadline):
            raise call.http_port() from error
        raise failure.error from error

    def close(self) -> None:
        """Close this process's channel; calls under way end with ``Unavailable``."""
        self._closed = True
        connection = self._connections.get(getpid())
        if connection is not None:
            connection.channel.close()

    def _connection(self) -> Connection:
        if self._closed:
            raise RuntimeError("the client is closed")
        pid = getpid()
        found = self._connections.get(pid)
        if found is None:
            # Two threads may open one each; the one that is not kept closes by itself.
            found = self._connections.setdefault(pid, Connection(self._settings.open()))
        return found
