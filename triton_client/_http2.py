"""One HTTP/2 connection of a client that makes unary gRPC calls; without I/O.

It exists for the tensors: a message is sent from where it lies and received into the memory that
the arrays will be views of. What a call does not need is left out: no priorities, no push, no
dynamic header table (we announce a table of size 0, so that equal header blocks are equal bytes).

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK) and gRPC's PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, ClassVar, Final

import hpack

from triton_client._header_blocks import timeout_header
from triton_client._http2_stream import CANCEL, PREFIX, REFUSED, SMALL, Stream
from triton_client._status import ConnectionBroken, StatusError
from triton_client._tensors import raw_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Connection"]

Buffer = bytes | bytearray | memoryview

_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x3, 0x4
_PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_MAX_STREAMS_SETTING, _WINDOW_SETTING, _FRAME_SETTING = 0x3, 0x4, 0x5

_FRAME: Final = Struct(">HBBBI")  # length (16 and 8 bits), type, flags, stream
_SETTING: Final = Struct(">HI")
_UINT: Final = Struct(">I")
_FRAME_SIZE: Final = 9
_MOST_WINDOW: Final = 2**31 - 1
_LAST_STREAM: Final = 2**31 - 3
# Of what is received, so much before the connection's window is opened again.
_REFILL: Final = 2**30
_SCRATCH: Final = 1 << 16
# Bytes that are handed to a socket at once, and pieces: the system takes 1024 (IOV_MAX).
_MOST_BYTES: Final = 1 << 20
_MOST_PIECES: Final = 512
# Protobuf's limit, on both sides.
_MOST_MESSAGE: Final = 2**31 - 1
_KEPT_BLOCKS: Final = 64

_PREFACE: Final = b"".join((
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    _FRAME.pack(0, 24, _SETTINGS, 0, 0),
    _SETTING.pack(0x1, 0),  # no dynamic header table
    _SETTING.pack(0x2, 0),  # no push
    _SETTING.pack(_WINDOW_SETTING, _MOST_WINDOW),
    _SETTING.pack(_FRAME_SETTING, 2**24 - 1),
    _FRAME.pack(0, 4, _WINDOW_UPDATE, 0, 0),
    _UINT.pack(_MOST_WINDOW - 65_535),
))  # fmt: skip


class Connection:
    """The state of one connection.

    The shell sends what :meth:`outgoing` returns, writes what comes into :meth:`buffer` and says
    so to :meth:`received`.
    """

    __slots__ = (
        "_blocks", "_continued", "_data", "_data_left", "_decoder", "_ending", "_fragments",
        "_most_frame", "_numbers", "_out", "_padding", "_received", "_scratch",
        "_stop", "_window", "_window_of_streams", "finished", "last", "most_streams", "streams",
    )  # fmt: skip

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.finished: list[Stream] = []
        """Streams that ended since the shell last looked; the shell empties it."""
        self.last: str | None = None
        """Why no further stream may be opened, once that is so."""
        self.most_streams = _MOST_WINDOW
        self._numbers = 1
        self._window = 65_535
        self._window_of_streams = 65_535
        self._most_frame = 16_384
        self._out: list[Any] = [_PREFACE]
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._stop = 0  # the end of what is not yet parsed; it begins at 0
        self._received = 0
        self._data: Stream | None = None  # the stream that a DATA frame under way is for
        self._data_left = self._padding = 0
        self._ending = False
        self._fragments = b""
        self._continued: tuple[int, int] | None = None
        self._decoder = hpack.Decoder()
        self._blocks: dict[bytes, dict[str, str]] = {}

    # What is sent.

    def open(self, block: bytes, timeout: float | None, parts: Sequence[Any]) -> Stream:
        """Begin a call.

        Args:
            block: Of :func:`header_block`.
            timeout: The seconds that the server is told; ``None`` for none.
            parts: The message, in contiguous parts that follow each other.

        Raises:
            ConnectionBroken: The connection takes no further calls.
            StatusError: The message is too large for gRPC.
        """
        if self.last is not None:
            raise ConnectionBroken(self.last)
        size = sum(map(raw_size, parts))
        if size > _MOST_MESSAGE:
            raise StatusError(
                "INVALID_ARGUMENT", f"a request of {size} bytes; gRPC takes less than 2 GiB"
            )
        number, self._numbers = self._numbers, self._numbers + 2
        if self._numbers > _LAST_STREAM:
            self.last = "the connection has had all the streams it can have"
        if timeout is not None:
            block += timeout_header(timeout)
        self._out += (_frame(_HEADERS, _END_HEADERS, number, len(block)), block)
        prefix, framed = PREFIX.pack(0, size), size + PREFIX.size
        pieces: list[memoryview] = []
        if framed <= min(SMALL, self._most_frame, self._window, self._window_of_streams):
            self._out += (_frame(_DATA, _END_STREAM, number, framed), prefix, *parts)
            self._window -= framed
        else:
            pieces = [memoryview(prefix), *(memoryview(part).cast("B") for part in parts)]
        stream = self.streams[number] = Stream(number, self._window_of_streams, pieces)
        return stream

    def outgoing(self) -> list[Buffer]:
        """Return what may be sent now, a mebibyte or so at a time; nothing where nothing may be."""
        out: list[Buffer] = [b"".join(self._out)] if self._out else []
        self._out = []
        left = _MOST_BYTES
        for stream in self.streams.values():
            if left <= 0 or self._window <= 0 or len(out) >= _MOST_PIECES:
                break
            if stream.pieces:
                left -= self._take(stream, left, out)
        return out

    def blocked(self, stream: Stream) -> bool:
        """Tell whether some of a stream's message waits to be sent."""
        return bool(stream.pieces)

    def cancel(self, stream: Stream) -> None:
        """Give a call up: its answer is not wanted any more."""
        if self.streams.pop(stream.number, None) is not None:
            self._reset(stream)
            if self._data is stream:
                self._data = None

    def _take(self, stream: Stream, most: int, out: list[Buffer]) -> int:
        """Cut frames off a stream's message; return how many bytes."""
        taken = 0
        pieces = stream.pieces
        while pieces and taken < most and len(out) < _MOST_PIECES:
            room = min(self._most_frame, self._window, stream.window)
            if room <= 0:
                break
            at, size = len(out), 0
            out.append(b"")
            while pieces and size < room and len(out) < _MOST_PIECES + 64:
                piece = pieces.pop()
                if piece.nbytes > room - size:
                    pieces.append(piece[room - size :])
                    piece = piece[: room - size]
                size += piece.nbytes
                out.append(piece)
            out[at] = _frame(_DATA, 0 if pieces else _END_STREAM, stream.number, size)
            self._window -= size
            stream.window -= size
            taken += size
        return taken

    # What is received.

    def buffer(self) -> memoryview:
        """Return where the next bytes go: a message's own memory where they are part of one."""
        if self._data_left and self._data is not None and not self._stop:
            room = self._data.room(self._data_left)
            if room is not None and len(room) >= _SCRATCH // 4:
                return room
        return self._scratch[self._stop :]

    def received(self, size: int, into: memoryview) -> None:
        """Take note of bytes that came.

        Args:
            size: How many; 0 at the end.
            into: What :meth:`buffer` had returned.

        Raises:
            ConnectionBroken: There were none: the peer closed it; or it does not keep to the
                protocol.
        """
        if size == 0:
            raise ConnectionBroken(self.last or "the server closed the connection")
        if into.obj is not self._scratch.obj:
            stream = self._data
            if stream is not None:  # else it was cancelled meanwhile
                stream.took(size)
            self._data_left -= size
            self._count(size)
            if not self._data_left and not self._padding:
                self._end_of_data()
            return
        self._stop += size
        position = 0
        while (after := self._parse(position)) is not None:
            position = after
        if position:
            rest = self._stop - position
            self._scratch[:rest] = bytes(self._scratch[position : self._stop])
            self._stop = rest

    def _parse(self, at: int) -> int | None:
        """Take one frame, or a part of a DATA frame, and return where it ends."""
        left = self._stop - at
        if self._data_left or self._padding:
            return self._more_data(at, left) if left else None
        if left < _FRAME_SIZE:
            return None
        high, low, kind, flags, number = _FRAME.unpack_from(self._scratch, at)
        size, number = high << 8 | low, number & _MOST_WINDOW
        if self._continued is not None and (kind, number) != (_CONTINUATION, self._continued[0]):
            raise ConnectionBroken("the server interrupted its headers")
        begin = at + _FRAME_SIZE
        if kind == _DATA:
            if left >= _FRAME_SIZE + size and self._whole(begin, size, flags, number):
                return int(begin + size)
            return self._begin_data(begin, size, flags, number)
        if size > _SCRATCH - _FRAME_SIZE:
            raise ConnectionBroken("the server sent a frame that is too large")
        if left < _FRAME_SIZE + size:
            return None
        handle = self._handlers.get(kind)
        if handle is not None:
            try:
                handle(self, flags, number, bytes(self._scratch[begin : begin + size]))
            except (struct_error, IndexError) as error:
                raise ConnectionBroken("the server sent a frame that is too short") from error
        return int(begin + size)

    def _whole(self, begin: int, size: int, flags: int, number: int) -> bool:
        """Take a DATA frame that is all here and one whole message: what most answers are."""
        stream = self.streams.get(number)
        if stream is None or flags & _PADDED:
            return False
        if not stream.whole(self._scratch[begin : begin + size]):
            return False
        self._count(size)
        if flags & _END_STREAM:
            self._end(stream)
        return True

    def _begin_data(self, begin: int, size: int, flags: int, number: int) -> int | None:
        padding = 0
        if flags & _PADDED:
            if self._stop <= begin:
                return None
            padding = self._scratch[begin]
            begin, size = begin + 1, size - 1
            self._count(1)
        if padding > size:
            raise ConnectionBroken("the server padded a frame beyond its size")
        self._data = self.streams.get(number)
        self._data_left, self._padding = size - padding, padding
        self._ending = bool(flags & _END_STREAM)
        if size == 0:
            self._end_of_data()
        return begin

    def _more_data(self, at: int, left: int) -> int:
        take = min(left, self._data_left)
        if take:
            if self._data is not None:
                self._data.put(self._scratch[at : at + take])
            self._data_left -= take
        skip = 0
        if not self._data_left:
            skip = min(left - take, self._padding)
            self._padding -= skip
        self._count(take + skip)
        if not self._data_left and not self._padding:
            self._end_of_data()
        return at + take + skip

    def _end_of_data(self) -> None:
        stream, self._data = self._data, None
        if self._ending and stream is not None:
            self._end(stream)

    def _count(self, size: int) -> None:
        self._received += size
        if self._received >= _REFILL:
            self._out.append(_frame(_WINDOW_UPDATE, 0, 0, 4) + _UINT.pack(self._received))
            self._received = 0

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & _PRIORITY:
            payload = payload[5:]
        self._headers(number, flags, flags, payload)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._continued is None:
            raise ConnectionBroken("the server continued headers that it had not begun")
        self._headers(number, flags, self._continued[1], self._fragments + payload)

    def _on_reset(self, _flags: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            (stream.reset,) = _UINT.unpack(payload)
            self._end(stream)

    def _on_settings(self, flags: int, _number: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        if len(payload) % _SETTING.size:
            raise ConnectionBroken("the server's settings cannot be read")
        for name, value in _SETTING.iter_unpack(payload):
            if name == _MAX_STREAMS_SETTING:
                self.most_streams = value
            elif name == _WINDOW_SETTING:
                for stream in self.streams.values():
                    stream.window += value - self._window_of_streams
                self._window_of_streams = value
            elif name == _FRAME_SETTING:
                self._most_frame = max(16_384, value)
        self._out.append(_frame(_SETTINGS, _ACK, 0, 0))

    def _on_push(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionBroken("the server pushes, which it was told not to")

    def _on_ping(self, flags: int, _number: int, payload: bytes) -> None:
        if not flags & _ACK:
            self._out.append(_frame(_PING, _ACK, 0, len(payload)) + payload)

    def _on_goaway(self, _flags: int, _number: int, payload: bytes) -> None:
        (last,) = _UINT.unpack_from(payload)
        text = payload[8:].decode(errors="replace")
        self.last = f"the server is closing the connection{': ' if text else ''}{text}"
        for stream in [stream for stream in self.streams.values() if stream.number > last]:
            # It says that it has done nothing of these.
            stream.reset = REFUSED
            self._end(stream)

    def _on_window(self, _flags: int, number: int, payload: bytes) -> None:
        size = _UINT.unpack(payload)[0] & _MOST_WINDOW
        if number == 0:
            self._window += size
        elif number in self.streams:
            self.streams[number].window += size

    # Of the class: a table of bound methods would keep every connection alive.
    _handlers: ClassVar[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
        _HEADERS: _on_headers,
        _RST_STREAM: _on_reset,
        _SETTINGS: _on_settings,
        _PUSH_PROMISE: _on_push,
        _PING: _on_ping,
        _GOAWAY: _on_goaway,
        _WINDOW_UPDATE: _on_window,
        _CONTINUATION: _on_continuation,
    }

    def _headers(self, number: int, flags: int, first: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            if len(block) > _SCRATCH:
                raise ConnectionBroken("the server's headers are too large")
            self._continued, self._fragments = (number, first), block
            return
        self._continued, self._fragments = None, b""
        headers = self._decode(block)
        stream = self.streams.get(number)
        if stream is not None:
            stream.headers.update(headers)
            if first & _END_STREAM:
                self._end(stream)

    def _decode(self, block: bytes) -> dict[str, str]:
        known = self._blocks.get(block)
        if known is None:
            try:
                known = {str(name): str(value) for name, value in self._decoder.decode(block)}
            except (hpack.HPACKError, UnicodeError) as error:
                raise ConnectionBroken(f"the server's headers cannot be read: {error}") from error
            # Without a dynamic table a block means the same each time.
            if self._decoder.header_table_size == 0 and len(self._blocks) < _KEPT_BLOCKS:
                self._blocks[block] = known
        return known

    def _end(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)
        stream.ended = True
        self.finished.append(stream)
        if stream.pieces:
            # It answered before it was told all: it wants no more of it.
            stream.pieces.clear()
            if stream.reset is None:
                self._reset(stream)

    def _reset(self, stream: Stream) -> None:
        self._out.append(_frame(_RST_STREAM, 0, stream.number, 4) + _UINT.pack(CANCEL))


def _frame(kind: int, flags: int, number: int, size: int) -> bytes:
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, number)
