"""Sends calls and repeats them where that is safe, from any thread and in any process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from os import getpid
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from triton_client._deadline import Deadline
from triton_client._green_threads import prepare_green_threads
from triton_client._hooks import HookContext, Hooks
from triton_client._http_port import HttpPort
from triton_client._retry import Attempts, Retries

if TYPE_CHECKING:
    from triton_client._channel import ChannelSettings
    from triton_client._requests import Call

__all__ = ["Transport"]

T = TypeVar("T")


class _Connection:
    """A process's channel, opened at its first use, and the callables that were made on it."""

    __slots__ = ("_channel", "_methods", "_settings")

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}

    def unary(self, path: str) -> Any:
        """Return what makes a unary call: from the bytes of a message to those of another."""
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = self._opened().unary_unary(path)
        return method

    def stream(self, path: str) -> Any:
        # On the wire, a stream of one request is that request.
        return self._opened().unary_stream(path)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _opened(self) -> grpc.Channel:
        if self._channel is None:
            # Two threads may open one each; the one that is not kept closes by itself.
            self._channel = self._settings.open()
        return self._channel


class Transport:
    """One server's channel.

    It opens at the first call. A channel does not survive a fork, so a child process opens one of
    its own and leaves its parent's alone; there is no lock that a fork could leave locked.

    Args:
        settings: How the channel is set up.
        retries: The most retries of a call.
        hooks: Called at the start and the end of every call.

    Raises:
        RuntimeError: gRPC does not work with the green threads of this program.
    """

    __slots__ = (
        "_closed", "_connected", "_connections", "_headers", "_hooks", "_http_port", "_retries",
        "_settings",
    )  # fmt: skip

    def __init__(self, settings: ChannelSettings, retries: int, hooks: Hooks | None = None) -> None:
        prepare_green_threads()
        self._settings = settings
        self._headers = settings.headers
        self._hooks = hooks
        self._retries = Retries(retries)
        self._connections: dict[int, _Connection] = {}
        self._connected = False
        self._http_port = HttpPort(settings.host_port)
        self._closed = False

    def run(self, call: Call[T], deadline: Deadline, *, retry: bool = True) -> T:
        """Send a call and return what its response says.

        Raises:
            TritonClientError: The call failed.
            RuntimeError: The client is closed.
        """
        if self._hooks is None:
            return self._run(call, deadline, retry=retry)
        with HookContext(self._hooks, call.info()):
            return self._run(call, deadline, retry=retry)

    def _run(self, call: Call[T], deadline: Deadline, *, retry: bool) -> T:
        attempts = Attempts()
        while True:
            method = self._connection().unary(call.method)
            metadata = self._headers.current(call.headers)
            left = deadline.remaining()
            if left == 0:
                raise call.overdue()
            try:
                answer = method(call.request, timeout=left, metadata=metadata)
            except grpc.RpcError as error:
                pause = self._pause(call, error, attempts, deadline, repeatable=retry)
            else:
                self._connected = True
                self._retries.succeeded()
                return call.read(answer)
            sleep(pause)

    def stream(self, call: Call[T], seconds: float | None) -> Iterator[T]:
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
            yield from self._stream(call, deadline)

    def _stream(self, call: Call[T], deadline: Deadline) -> Iterator[T]:
        attempts, answered = Attempts(), False
        while True:
            method = self._connection().stream(call.method)
            metadata = self._headers.current(call.headers)
            left = deadline.remaining()
            if left == 0:
                raise call.overdue()
            # No triton_grpc_error in the metadata, which gives errors a status code: a decoupled
            # Python model that ends its answers after an error then ends the server (24.10).
            answers = method(call.request, timeout=left, metadata=metadata)
            try:
                for answer in answers:
                    answered = self._connected = True
                    yield call.read(answer)
            except grpc.RpcError as error:
                if answered:
                    raise call.failed(error).error from error
                pause = self._pause(call, error, attempts, deadline, repeatable=False)
            else:
                return
            finally:
                answers.cancel()
            sleep(pause)

    def _pause(
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
        if unreached and self._http_port.answers(deadline):
            raise call.http_port() from error
        raise failure.error from error

    def close(self) -> None:
        """Close this process's channel; calls under way end with ``Unavailable``."""
        self._closed = True
        connection = self._connections.get(getpid())
        if connection is not None:
            connection.close()

    def _connection(self) -> _Connection:
        if self._closed:
            raise RuntimeError("the client is closed")
        pid = getpid()
        found = self._connections.get(pid)
        if found is None:
            # Two threads may make one each; the one that is not kept has opened nothing.
            found = self._connections.setdefault(pid, _Connection(self._settings))
        return found
