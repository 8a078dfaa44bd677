"""Sends calls and repeats them where that is safe, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from os import getpid
from typing import Any, NoReturn, TypeVar

import grpc.aio

from triton_client._channel import ChannelSettings
from triton_client._deadline import Deadline
from triton_client._hooks import Hooks
from triton_client._requests import Call
from triton_client._retry import Attempts
from triton_client._transport import Connection, TransportBase

__all__ = ["AsyncTransport"]

T = TypeVar("T")


class AsyncTransport(TransportBase):
    """One server's channel, for an event loop.

    A channel belongs to the event loop and the process in which it was opened; in another one the
    next call opens another channel.
    """

    __slots__ = ("_loop", "_opened", "_pid")

    def __init__(self, settings: ChannelSettings, retries: int, hooks: Hooks | None = None) -> None:
        super().__init__(settings, retries, hooks, aio=True)
        self._opened: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    async def run(self, call: Call[T], deadline: Deadline, *, retry: bool = True) -> T:
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
                    answer = await method(call.request, timeout=left, metadata=metadata)
                except grpc.RpcError as error:
                    attempts = attempts or Attempts(deadline, retry)
                    pause = await self._pause(call, error, attempts)
                except asyncio.CancelledError as error:
                    _raise_cancelled(call, error)
                else:
                    self._connected = True
                    self._retries.succeeded()
                    return call.read(answer)
                await asyncio.sleep(pause)

    async def stream(self, call: Call[T], deadline: Deadline) -> AsyncIterator[T]:
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
                # As in the synchronous transport, no triton_grpc_error in the metadata.
                answers = method(call.request, timeout=left, metadata=metadata)
                try:
                    async for answer in answers:
                        answered = self._connected = True
                        yield call.read(answer)
                except grpc.RpcError as error:
                    if answered:
                        raise call.failed(error).error from error
                    pause = await self._pause(call, error, attempts)
                except asyncio.CancelledError as error:
                    _raise_cancelled(call, error)
                else:
                    return
                finally:
                    answers.cancel()
                await asyncio.sleep(pause)

    async def _pause(self, call: Call[T], error: grpc.RpcError, attempts: Attempts) -> float:
        """Return the seconds to wait before the next attempt; raises the error if there is none."""
        failure = call.failed(error)
        pause = self._retries.pause(failure, attempts)
        if pause is not None:
            return pause
        unreached = failure.transient and not self._connected
        if unreached and await self._http_port.aio_answers(attempts.deadline):
            raise call.http_port() from error
        raise failure.error from error

    async def close(self) -> None:
        """Close the connection; calls under way end with ``Unavailable``."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is not None and self._loop is asyncio.get_running_loop():
            await opened.channel.close()

    def _connection(self) -> Connection:
        if self._closed:
            raise RuntimeError("the client is closed")
        opened, loop, pid = self._opened, asyncio.get_running_loop(), getpid()
        if opened is None or self._loop is not loop or self._pid != pid:
            opened = self._opened = Connection(self._settings.open_aio())
            self._loop, self._pid = loop, pid
        return opened


def _raise_cancelled(call: Call[Any], error: asyncio.CancelledError) -> NoReturn:
    """Raise the error if the task was cancelled; closing grpcio's channel looks the same."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
    raise call.failure("CANCELLED", "the client was closed").error from error
