"""Whether an address that takes no gRPC is an HTTP port: Triton has both, with adjacent numbers."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Final

from triton_client._deadline import Deadline

__all__ = ["HttpPort"]

_SECONDS: Final = 1.0  # the longest that a look may take, and the shortest time between two
_REQUEST: Final = b"GET /v2/health/live HTTP/1.1\r\nHost: triton\r\nConnection: close\r\n\r\n"


class HttpPort:
    """Finds out whether an address, if there is one, is an HTTP port; what was found stays."""

    __slots__ = ("_address", "_found", "_next")

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._address = address
        self._found = False
        self._next = 0.0

    def answers(self, deadline: Deadline) -> bool:
        """Check whether HTTP/1 answers there; ``False`` where nothing does in time."""
        if look := self._look():
            with suppress(TimeoutError):
                self._found = look.result(deadline.within(_SECONDS))
        return self._found

    async def aio_answers(self, deadline: Deadline) -> bool:
        """As :meth:`answers`, from an event loop."""
        if look := self._look():
            with suppress(TimeoutError):
                self._found = await asyncio.wait_for(
                    asyncio.wrap_future(look), deadline.within(_SECONDS)
                )
        return self._found

    def _look(self) -> Future[bool] | None:
        """Begin to look; ``None`` where one was begun just now, since many calls fail at once."""
        now, address = monotonic(), self._address
        if address is None or self._found or now < self._next:
            return None
        self._next = now + _SECONDS
        look: Future[bool] = Future()
        look.set_running_or_notify_cancel()  # so that it is not cancelled with who waits for it
        # Looking a name up cannot be interrupted, and an executor's thread would hold up the end of
        # an event loop and of the process: hence a daemon thread that nothing waits for.
        thread = threading.Thread(
            target=lambda: look.set_result(_answers_http(address)),
            name="triton-client-http-port",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the process may start no thread
            look.set_result(False)
        return look


def _answers_http(address: tuple[str, int]) -> bool:
    # A UnicodeError is of a name that cannot be looked up: a part of it is empty or too long.
    with suppress(OSError, UnicodeError), socket.create_connection(address, _SECONDS) as end:
        end.sendall(_REQUEST)
        return end.recv(16).startswith(b"HTTP/1.")
    return False
