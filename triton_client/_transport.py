"""What the transports of both clients share: what a call is sent with, and what its end means."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any, Final

from triton_client._channel import ChannelSettings
from triton_client._deadline import Deadline
from triton_client._headers import Metadata
from triton_client._hooks import Hooks, hooked
from triton_client._http_port import HttpPort
from triton_client._requests import Call
from triton_client._retry import Retries

__all__ = ["Connection", "TransportBase"]

_NO_HOOKS: Final = nullcontext()


class Connection:
    """An open channel, and what makes the unary calls of a path: from bytes to bytes."""

    __slots__ = ("channel", "unary")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.unary: Callable[[str], Any] = cache(channel.unary_unary)


class TransportBase:
    """One server's channel, of ``grpc`` or of ``grpc.aio``, which opens at the first call.

    Raises:
        RuntimeError: gRPC does not work with the green threads of this program.
    """

    __slots__ = (
        "_closed", "_connected", "_headers", "_hooks", "_http_port", "_retries", "_settings",
    )  # fmt: skip

    def __init__(
        self, settings: ChannelSettings, retries: int, hooks: Hooks | None, *, aio: bool
    ) -> None:
        _prepare_green_threads(aio=aio)
        self._settings = settings
        self._headers = settings.headers
        self._hooks = hooks
        self._retries = Retries(retries)
        self._connected = False
        self._http_port = HttpPort(settings.host_port)
        self._closed = False

    def _hooked(self, call: Call[Any]) -> AbstractContextManager[None]:
        return _NO_HOOKS if self._hooks is None else hooked(self._hooks, call.info())

    def _terms(self, call: Call[Any], deadline: Deadline) -> tuple[float | None, Metadata | None]:
        """Return the seconds and the headers of a call's next attempt."""
        metadata = self._headers.current(call.headers)
        left = deadline.remaining()
        if left == 0:
            # gRPC rounds to milliseconds, in which a server nearby may well have answered.
            message = "the deadline passed before the request was sent"
            raise call.failure("DEADLINE_EXCEEDED", message).error
        return left, metadata


def _prepare_green_threads(*, aio: bool) -> None:
    """Let gRPC know of gevent where that has patched threads, unless the application has.

    gRPC waits for events in its own threads. Where these are green threads, they deadlock unless
    gRPC is prepared for gevent before its first channel; for eventlet it cannot be.
    """
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise RuntimeError(
            "eventlet has patched threads, with which gRPC hangs; patch with "
            "eventlet.monkey_patch(thread=False), or use gevent"
        )
    gevent = sys.modules.get("gevent.monkey")
    if gevent is None or not gevent.is_module_patched("threading"):
        return
    if aio:
        raise RuntimeError(
            "gevent has patched threads, with which gRPC's asyncio hangs; use TritonClient, which "
            "does not hold up other greenlets"
        )
    if "grpc.experimental.gevent" not in sys.modules:
        import_module("grpc.experimental.gevent").init_gevent()
