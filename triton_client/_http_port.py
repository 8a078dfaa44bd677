"""Whether an address that takes no gRPC is an HTTP port: Triton has both, with adjacent numbers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from triton_client._deadline import Deadline

__all__ = ["HttpPort"]

_SECONDS: Final = 1.0  # the longest that a look may take, and the shortest time between two

_REQUEST: Final = b"GET /v2/health/live HTTP/1.1\r\nHost: triton\r\nConnection: close\r\n\r\n"

# Looking a name up cannot be interrupted, and an executor's thread would hold up the end of an
# event loop and of the process: hence daemon threads that nothing waits for.


class HttpPort:
    """Finds out whether an address is an HTTP port; what was found stays.

    Args:
        address: The host and the port; ``None`` for an address that is not looked at.
    """

    __slots__ = ("_address", "_found", "_next")

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._address = address
        self._found = False
        self._next = 0.0

    def answers(self, deadline: Deadline) -> bool:
        """Check whether HTTP/1 answers there; ``False`` where nothing does in time."""
        seconds = self._due(deadline)
        if self._address is not None and seconds:
            found: list[bool] = []
            thread = _start(self._address, seconds, found.append)
            if thread is not None:
                thread.join(seconds)
            self._found = found == [True]
        return self._found

    async def aio_answers(self, deadline: Deadline) -> bool:
        """As :meth:`answers`, from an event loop."""
        seconds = self._due(deadline)
        if self._address is not None and seconds:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[bool] = loop.create_future()

            def settle(found: bool) -> None:
                if not future.done():
                    future.set_result(found)

            def report(found: bool) -> None:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(settle, found)

            if _start(self._address, seconds, report) is not None:
                with suppress(TimeoutError):
                    self._found = await asyncio.wait_for(future, seconds)
        return self._found

    def _due(self, deadline: Deadline) -> float:
        """Return how long a look may take; 0 for none, since many calls may fail at once."""
        now = monotonic()
        if self._found or now < self._next:
            return 0.0
        self._next = now + _SECONDS
        return deadline.within(_SECONDS)


def _start(
    address: tuple[str, int], seconds: float, report: Callable[[bool], None]
) -> threading.Thread | None:
    """Start a look; ``None`` where the process may start no thread."""
    thread = threading.Thread(
        target=lambda: report(_answers_http(address, seconds)),
        name="triton-client-http-port",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def _answers_http(address: tuple[str, int], seconds: float) -> bool:
    with suppress(OSError), socket.create_connection(address, seconds) as end:
        end.sendall(_REQUEST)
        return end.recv(16).startswith(b"HTTP/1.")
    return False
