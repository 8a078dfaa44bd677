"""One unary gRPC call on an HTTP/2 connection: what is left to send, and the answer so far.

Source: gRPC's PROTOCOL-HTTP2.md and its "HTTP to gRPC status code mapping".
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import numpy as np

from triton_client._status import STATUS_NAMES, ConnectionBroken, StatusError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CANCEL", "PREFIX", "REFUSED", "SMALL", "Stream"]

PREFIX: Final = Struct(">BI")
"""What stands before a message: whether it is compressed, and its length."""
SMALL: Final = 1 << 15
"""Above this many bytes, a message gets memory of its own that is not cleared first."""
REFUSED, CANCEL = 0x7, 0x8

_BY_NUMBER: Final = {str(number): name for number, name in enumerate(STATUS_NAMES)}
_STATUS_OF_HTTP: Final = {
    "400": "INTERNAL", "401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED", "429": "UNAVAILABLE", "502": "UNAVAILABLE", "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}  # fmt: skip
_STATUS_OF_RESET: Final = {
    REFUSED: "UNAVAILABLE", CANCEL: "CANCELLED",
    0xB: "RESOURCE_EXHAUSTED", 0xC: "PERMISSION_DENIED",
}  # fmt: skip


class Stream:
    """One call on a connection.

    Attributes:
        number: Its number on the connection.
        ended: The server has said all that it will say.
    """

    __slots__ = (
        "_filled", "_length", "_message", "_messages", "_prefix", "_view", "ended", "headers",
        "number", "pieces", "reset", "waiting", "window",
    )  # fmt: skip

    def __init__(self, number: int, window: int, pieces: Iterable[memoryview]) -> None:
        self.number = number
        self.window = window
        self.pieces = list(pieces)[::-1]  # what is still to be sent, the next piece last
        self.headers: dict[str, str] = {}
        self.reset: int | None = None
        self.ended = False
        self.waiting: Any = None  # whoever waits for the end, for the shell
        self._prefix = b""
        self._length = -1
        self._filled = 0
        self._message: Any = None
        self._view = memoryview(b"")
        self._messages = 0

    def answer(self) -> bytes | memoryview:
        """Return the message that came.

        Raises:
            StatusError: The call failed.
        """
        headers = self.headers
        status = headers.get("grpc-status")
        if status != "0":
            raise StatusError(*self._failure(status))
        if self._messages != 1 or self._length >= 0 or self._prefix:
            raise StatusError("INTERNAL", "the server's answer is not one whole message")
        if isinstance(self._message, bytes | bytearray):
            return bytes(self._message)
        return memoryview(self._message).toreadonly()

    def _failure(self, status: str | None) -> tuple[str, str]:
        if status is not None:
            code = _BY_NUMBER.get(status, "UNKNOWN")
            raw = self.headers.get("grpc-message", "")
            return code, unquote_to_bytes(raw).decode(errors="replace")
        http = self.headers.get(":status", "200")
        if http != "200":
            return _STATUS_OF_HTTP.get(http, "UNKNOWN"), f"the server answered with HTTP {http}"
        if self.reset is not None:
            code = _STATUS_OF_RESET.get(self.reset, "INTERNAL")
            return code, f"the server reset the stream (HTTP/2 error {self.reset})"
        return "INTERNAL", "the server's answer has no status"

    def room(self, size: int) -> memoryview | None:
        """Return where the next ``size`` bytes of data go, if it is known and worth it."""
        left = self._length - self._filled
        return self._view[self._filled : self._filled + min(size, left)] if left > 0 else None

    def took(self, size: int) -> None:
        """Note that so many bytes were written into :meth:`room`."""
        self._filled += size
        if self._filled == self._length:
            self._messages += 1
            self._length = -1

    def whole(self, data: memoryview) -> bool:
        """Take data that is one whole message; ``False`` where it is anything else."""
        if self._length >= 0 or self._prefix or len(data) < PREFIX.size:
            return False
        compressed, length = PREFIX.unpack_from(data)
        if compressed or length != len(data) - PREFIX.size:
            return False
        self._message = bytes(data[PREFIX.size :])
        self._messages += 1
        return True

    def put(self, data: memoryview) -> None:
        """Take data that came elsewhere.

        Raises:
            ConnectionBroken: The server compresses what it was asked to leave as it is.
        """
        if self.headers.get(":status", "200") != "200":
            return  # a page that says what is wrong, to people
        position, end = 0, len(data)
        while position < end:
            if self._length < 0:
                take = min(PREFIX.size - len(self._prefix), end - position)
                self._prefix += bytes(data[position : position + take])
                position += take
                if len(self._prefix) == PREFIX.size:
                    self._begin()
                continue
            room = self.room(end - position)
            if room is not None:
                room[:] = data[position : position + len(room)]
                position += len(room)
                self.took(len(room))

    def _begin(self) -> None:
        compressed, length = PREFIX.unpack(self._prefix)
        if compressed:
            raise ConnectionBroken("the server compressed its answer, which was not asked for")
        self._prefix = b""
        # Memory from numpy is not cleared, and lies in huge pages where it is large.
        self._message = bytearray(length) if length <= SMALL else np.empty(length, np.uint8)
        self._view = memoryview(self._message)
        self._length, self._filled = length, 0
        if length == 0:
            self.took(0)
