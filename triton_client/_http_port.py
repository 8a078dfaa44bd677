"""Whether an address that takes no gRPC is an HTTP port: Triton has both, one beside the other."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HTTP_PORT_SECONDS", "aio_is_http_port", "is_http_port"]

HTTP_PORT_SECONDS: Final = 1.0
"""The longest that the question may take."""

_REQUEST: Final = b"GET /v2/health/live HTTP/1.1\r\nHost: triton\r\nConnection: close\r\n\r\n"

# Looking a name up cannot be interrupted, and an executor's thread would hold up the end of an
# event loop and of the process: hence threads of its own that are left alone.


def is_http_port(address: tuple[str, int], seconds: float) -> bool:
    """Tell whether HTTP/1 answers at an address; ``False`` where nothing does in time."""
    found: list[bool] = []
    thread = _start(address, seconds, found.append)
    thread.join(seconds)
    return bool(found and found[0])


async def aio_is_http_port(address: tuple[str, int], seconds: float) -> bool:
    """As :func:`is_http_port`, from an event loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def settle(found: bool) -> None:
        if not future.done():
            future.set_result(found)

    def tell(found: bool) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found)

    _start(address, seconds, tell)
    with suppress(TimeoutError):
        return await asyncio.wait_for(future, seconds)
    return False


def _start(
    address: tuple[str, int], seconds: float, tell: Callable[[bool], None]
) -> threading.Thread:
    thread = threading.Thread(
        target=lambda: tell(_answers_http(address, seconds)),
        name="triton-client-http-port",
        daemon=True,
    )
    thread.start()
    return thread


def _answers_http(address: tuple[str, int], seconds: float) -> bool:
    with suppress(OSError), socket.create_connection(address, seconds) as end:
        end.sendall(_REQUEST)
        return end.recv(16).startswith(b"HTTP/1.")
    return False
