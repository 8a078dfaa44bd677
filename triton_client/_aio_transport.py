"""Sends calls and repeats them where that is safe, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from os import getpid
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc.aio

from triton_client._channel import ChannelSettings
from triton_client._deadline import Deadline
from triton_client._green_threads import prepare_green_threads
from triton_client._hooks import HookContext, Hooks
from triton_client._http_port import HttpPort
from triton_client._retry import Attempts, Retries

if TYPE_CHECKING:
    from triton_client._requests import Call

__all__ = ["AsyncTransport"]

T = TypeVar("T")


_CLOSED: Final = "the client was closed"


def _raise_if_cancelled(error: asyncio.CancelledError) -> None:
    """Raise the error if the task was cancelled; closing grpcio's channel looks the same."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error


class _Connection:
    """An open channel, its loop and process, and the callables that were made on it."""

    __slots__ = ("_channel", "_methods", "loop", "pid")

    def __init__(self, settings: ChannelSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._channel: grpc.aio.Channel = settings.open_aio()
        self._methods: dict[str, Any] = {}
        self.loop = loop
        self.pid = getpid()

    def unary(self, path: str) -> Any:
        """Return what makes a unary call: from the bytes of a message to those of another."""
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = self._channel.unary_unary(path)
        return method

    def stream(self, path: str) -> Any:
        # On the wire, a stream of one request is that request.
        return self._channel.unary_stream(path)

    async def close(self) -> None:
        await self._channel.close()


class AsyncTransport:
    """One server's channel, as :class:`triton_client._sync_transport.Transport`.

    A channel belongs to the event loop and the process in which it was opened; in another one the
    next call opens another channel.

    Args:
        settings: How the channel is set up.
        retries: The most retries of a call.
        hooks: Called at the start and the end of every call.

    Raises:
        RuntimeError: gRPC does not work with the green threads of this program.
    """

    __slots__ = (
        "_closed", "_connected", "_headers", "_hooks", "_http_port", "_opened", "_retries",
        "_settings",
    )  # fmt: skip

    def __init__(self, settings: ChannelSettings, retries: int, hooks: Hooks | None = None) -> None:
        prepare_green_threads(aio=True)
        self._settings = settings
        self._headers = settings.headers
        self._hooks = hooks
        self._retries = Retries(retries)
        self._opened: _Connection | None = None
        self._connected = False
        self._http_port = HttpPort(settings.host_port)
        self._closed = False

    async def run(self, call: Call[T], deadline: Deadline, *, retry: bool = True) -> T:
        """Send a call and return what its response says.

        Raises:
            TritonClientError: The call failed.
            RuntimeError: The client is closed.
        """
        if self._hooks is None:
            return await self._run(call, deadline, retry=retry)
        with HookContext(self._hooks, call.info()):
            return await self._run(call, deadline, retry=retry)

    async def _run(self, call: Call[T], deadline: Deadline, *, retry: bool) -> T:
        attempts = Attempts()
        while True:
            method = self._connection().unary(call.method)
            metadata = self._headers.current(call.headers)
            left = deadline.remaining()
            if left == 0:
                raise call.overdue()
            try:
                answer = await method(call.request, timeout=left, metadata=metadata)
            except grpc.RpcError as error:
                pause = await self._pause(call, error, attempts, deadline, repeatable=retry)
            except asyncio.CancelledError as error:
                _raise_if_cancelled(error)
                raise call.failure("CANCELLED", _CLOSED).error from error
            else:
                self._connected = True
                self._retries.succeeded()
                return call.read(answer)
            await asyncio.sleep(pause)

    async def stream(self, call: Call[T], seconds: float | None) -> AsyncIterator[T]:
        """Send a call and yield what each of its responses says; leaving early cancels it.

        Args:
            call: The call; it is sent when the first response is wanted, and again only where the
                server never processed it.
            seconds: How long all of it may take from then on; ``None`` for no bound.

        Raises:
            TritonClientError: The call failed.
            RuntimeError: The client is closed.
        """
        deadline = Deadline(seconds)
        with nullcontext() if self._hooks is None else HookContext(self._hooks, call.info()):
            attempts, answered = Attempts(), False
            while True:
                method = self._connection().stream(call.method)
                metadata = self._headers.current(call.headers)
                left = deadline.remaining()
                if left == 0:
                    raise call.overdue()
                # No triton_grpc_error in the metadata, which gives errors a status code: a
                # decoupled Python model that ends its answers after an error then ends the server
                # (24.10).
                answers = method(call.request, timeout=left, metadata=metadata)
                try:
                    async for answer in answers:
                        answered = self._connected = True
                        yield call.read(answer)
                except grpc.RpcError as error:
                    if answered:
                        raise call.failed(error).error from error
                    pause = await self._pause(call, error, attempts, deadline, repeatable=False)
                except asyncio.CancelledError as error:
                    _raise_if_cancelled(error)
                    raise call.failure("CANCELLED", _CLOSED).error from error
                else:
                    return
                finally:
                    answers.cancel()
                await asyncio.sleep(pause)

    async def _pause(
        self,
        call: Call[T],
        error: grpc.RpcError,
        attempts: Attempts,
        deadline: Deadline,
        *,
        repeatable: bool,
    ) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            TritonClientError: There is none.
        """
        failure = call.failed(error)
        pause = self._retries.pause(failure, attempts, deadline, repeatable=repeatable)
        if pause is not None:
            return pause
        unreached = failure.transient and not self._connected
        if unreached and await self._http_port.aio_answers(deadline):
            raise call.http_port() from error
        raise failure.error from error

    async def close(self) -> None:
        """Close the connection; calls under way end with ``Unavailable``."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.close()

    def _connection(self) -> _Connection:
        if self._closed:
            raise RuntimeError("the client is closed")
        opened, loop = self._opened, asyncio.get_running_loop()
        if opened is None or opened.loop is not loop or opened.pid != getpid():
            opened = self._opened = _Connection(self._settings, loop)
        return opened
