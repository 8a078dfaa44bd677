"""The HTTP/2 connection without a socket: what it sends, and what it makes of what comes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import hpack
import numpy as np
import pytest

from triton_client._header_blocks import header_block
from triton_client._http2 import Connection
from triton_client._http2_stream import Stream
from triton_client._status import ConnectionBroken, StatusError

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0x0, 0x1, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0"), ("grpc-message", "")]


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return struct.pack(">HBBBI", size >> 8, size & 0xFF, kind, flags, number) + payload


def block(headers: Sequence[tuple[str, str]]) -> bytes:
    """A header block as a server sends it that was told to keep no table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(headers))


def message(content: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(content)) + content


def answer(number: int, content: bytes, *, cut: int = 100) -> bytes:
    whole = message(content)
    data = [
        frame(DATA, 0, number, whole[start : start + cut]) for start in range(0, len(whole), cut)
    ]
    return b"".join((
        frame(HEADERS, END_HEADERS, number, block(FIRST)),
        *data,
        frame(HEADERS, END_HEADERS | END_STREAM, number, block(OK)),
    ))  # fmt: skip


def settings(**values: int) -> bytes:
    numbers = {"streams": 3, "window": 4, "frame": 5}
    return frame(
        SETTINGS,
        0,
        0,
        b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items()),
    )


def feed(connection: Connection, content: bytes, most: int = 1 << 20) -> None:
    while content:
        room = connection.buffer()
        size = min(len(room), len(content), most)
        room[:size] = content[:size]
        connection.received(size, room)
        content = content[size:]


def frames(sent: bytes) -> list[tuple[int, int, int, bytes]]:
    found, position = [], 0
    while position < len(sent):
        high, low, kind, flags, number = struct.unpack_from(">HBBBI", sent, position)
        size = high << 8 | low
        found.append((kind, flags, number, sent[position + 9 : position + 9 + size]))
        position += 9 + size
    return found


def taken(connection: Connection) -> list[tuple[int, int, int, bytes]]:
    sent = b""
    while pieces := connection.outgoing():
        sent += b"".join(pieces)
    return frames(sent.removeprefix(PREFACE))


def opened(*parts: Any, timeout: float | None = None) -> tuple[Connection, Stream]:
    connection = Connection()
    return connection, connection.open(header_block("/s/M", "h:1"), timeout, parts)


def status(stream: Stream) -> tuple[str, str]:
    assert stream.ended
    with pytest.raises(StatusError) as caught:
        stream.answer()
    return caught.value.code, caught.value.details


def test_headers_are_those_of_a_grpc_call() -> None:
    secret = "s" * 300
    raw = header_block("/s/M", "h:1", [("Authorization", secret), ("x-bin", b"\x00\xff")])
    headers = dict(hpack.Decoder().decode(raw))
    assert headers == {
        ":method": "POST", ":scheme": "http", ":path": "/s/M", ":authority": "h:1",
        "te": "trailers", "content-type": "application/grpc", "user-agent": "triton-client",
        "grpc-accept-encoding": "identity", "authorization": secret, "x-bin": "AP8",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1e-9, "1u"), (0.25, "250000u"), (59.9999, "60000m"), (600, "600000m"), (1e9, "99999999S")],
)
def test_the_server_is_told_the_timeout(seconds: float, text: str) -> None:
    connection, _ = opened(b"", timeout=seconds)
    headers = next(payload for kind, _, _, payload in taken(connection) if kind == HEADERS)
    assert dict(hpack.Decoder().decode(headers))["grpc-timeout"] == text


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 300_000])
def test_a_message_is_sent_as_the_windows_allow(size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    array = np.frombuffer(content, np.uint8)
    connection, stream = opened(content[: size // 3], array[size // 3 :])
    sent, windows, ended = b"", 65_535, False
    for _ in range(100):
        for kind, flags, number, payload in taken(connection):
            if kind == DATA:
                assert (number, ended, len(payload) <= 16_384) == (1, False, True)
                sent += payload
                windows -= len(payload)
                ended = bool(flags & END_STREAM)
        assert windows >= 0
        if ended:
            break
        assert connection.blocked(stream)
        opening = struct.pack(">I", 20_000)
        # One window alone does not do.
        feed(connection, frame(WINDOW_UPDATE, 0, 0, opening))
        assert not any(kind == DATA for kind, *_ in taken(connection))
        feed(connection, frame(WINDOW_UPDATE, 0, 1, opening))
        windows += 20_000
    assert sent == message(content)


def test_a_message_beyond_protobuf_s_limit_is_refused() -> None:
    connection = Connection()
    zeros = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (2**31,), (0,))
    with pytest.raises(StatusError, match="2 GiB"):
        connection.open(header_block("/s/M", "h:1"), None, [zeros])
    assert connection.streams == {}


def test_settings_change_calls_under_way() -> None:
    connection, _ = opened(bytes(65_535 + 1))
    taken(connection)
    feed(connection, frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 10**6)))
    assert taken(connection) == []
    feed(connection, settings(window=10**6, frame=20_000, streams=7))
    found = taken(connection)
    assert (SETTINGS, ACK, 0, b"") in found
    assert [len(payload) for kind, _, _, payload in found if kind == DATA] == [6]
    assert connection.most_streams == 7
    connection.open(header_block("/s/M", "h:1"), None, [bytes(40_000)])
    assert [len(p) for kind, _, _, p in taken(connection) if kind == DATA] == [20_000, 20_000, 5]


@pytest.mark.parametrize("most", [1, 2, 8, 9, 10, 1000, 1 << 20])
@pytest.mark.parametrize("size", [0, 5, 3000])
def test_an_answer_may_come_in_any_pieces(most: int, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    connection, stream = opened(b"x")
    feed(connection, settings() + answer(1, content), most)
    assert connection.finished == [stream]
    assert bytes(stream.answer()) == content


def test_answers_of_several_calls_may_be_mixed() -> None:
    connection, first = opened(b"1")
    second = connection.open(header_block("/s/M", "h:1"), None, [b"2"])
    contents = {1: b"a" * 5000, 3: b"b" * 7000}
    parts = [frames(answer(number, content)) for number, content in contents.items()]
    mixed = [entry for pair in zip(*parts, strict=False) for entry in pair]
    mixed += parts[1][len(parts[0]) :]
    feed(connection, b"".join(frame(*entry) for entry in mixed), 37)
    assert connection.finished == [first, second]
    assert [bytes(stream.answer()) for stream in (first, second)] == list(contents.values())


def test_a_large_answer_comes_into_its_own_memory() -> None:
    content = np.random.default_rng(1).bytes(1 << 20)
    connection, stream = opened(b"x")
    feed(connection, answer(1, content, cut=1 << 17))
    found = stream.answer()
    assert isinstance(found, memoryview)
    assert found.readonly
    assert bytes(found) == content


def test_padding_and_continued_headers_are_understood() -> None:
    connection, stream = opened(b"x")
    first, last = block(FIRST), block(OK)
    content = message(b"hello")
    feed(
        connection,
        frame(HEADERS, PADDED, 1, b"\x03" + first[:4] + b"\0\0\0")
        + frame(CONTINUATION, 0, 1, first[4:6])
        + frame(CONTINUATION, END_HEADERS, 1, first[6:])
        + frame(DATA, PADDED, 1, b"\x04" + content[:7] + b"\0\0\0\0")
        + frame(DATA, PADDED, 1, b"\x00" + content[7:])
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, last),
        1,
    )
    assert bytes(stream.answer()) == b"hello"


def test_a_server_that_keeps_a_header_table_is_understood() -> None:
    encoder = hpack.Encoder()
    connection = Connection()
    for number in (1, 3, 5):
        stream = connection.open(header_block("/s/M", "h:1"), None, [b"x"])
        failed = [(":status", "200"), ("grpc-status", "13"), ("grpc-message", f"no%20{number}")]
        feed(connection, frame(HEADERS, 0x5, number, encoder.encode(failed)))
        assert status(stream) == ("INTERNAL", f"no {number}")


def test_a_ping_is_answered() -> None:
    connection, _ = opened(b"")
    taken(connection)
    feed(connection, frame(PING, 0, 0, b"12345678"))
    feed(connection, frame(PING, ACK, 0, b"87654321"))
    assert taken(connection) == [(PING, ACK, 0, b"12345678")]


def test_much_received_opens_the_window_again() -> None:
    connection, stream = opened(b"x")
    taken(connection)
    connection._received = 2**30 - 100
    feed(connection, answer(1, bytes(1000)))
    (update,) = [entry for entry in taken(connection) if entry[0] == WINDOW_UPDATE]
    assert struct.unpack(">I", update[3])[0] >= 2**30
    assert stream.ended


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([*FIRST, ("grpc-status", "3"), ("grpc-message", "bad%3A %C3%BC")],
         ("INVALID_ARGUMENT", "bad: ü")),
        ([*FIRST, ("grpc-status", "99")], ("UNKNOWN", "")),
        ([(":status", "503")], ("UNAVAILABLE", "the server answered with HTTP 503")),
        ([(":status", "404")], ("UNIMPLEMENTED", "the server answered with HTTP 404")),
        (FIRST, ("INTERNAL", "the server's answer has no status")),
        ([*FIRST, ("grpc-status", "0")],
         ("INTERNAL", "the server's answer is not one whole message")),
    ],
)  # fmt: skip
def test_a_call_that_fails_says_why(
    headers: list[tuple[str, str]], expected: tuple[str, str]
) -> None:
    connection, stream = opened(b"x")
    feed(connection, frame(HEADERS, END_HEADERS | END_STREAM, 1, block(headers)))
    assert status(stream) == expected


def test_a_page_of_a_proxy_is_no_message() -> None:
    connection, stream = opened(b"x")
    feed(connection, frame(HEADERS, END_HEADERS, 1, block([(":status", "502")])))
    feed(connection, frame(DATA, END_STREAM, 1, b"<html>Bad gateway</html>"))
    assert status(stream) == ("UNAVAILABLE", "the server answered with HTTP 502")


@pytest.mark.parametrize("content", [message(b"a") + message(b"b"), message(b"abc")[:-1], b"\0\0"])
def test_an_answer_that_is_not_one_message_is_an_error(content: bytes) -> None:
    connection, stream = opened(b"x")
    feed(connection, frame(HEADERS, END_HEADERS, 1, block(FIRST)) + frame(DATA, 0, 1, content))
    feed(connection, frame(HEADERS, END_HEADERS | END_STREAM, 1, block(OK)))
    assert status(stream)[0] == "INTERNAL"


@pytest.mark.parametrize(
    ("number", "code"), [(7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED")]
)
def test_a_reset_says_why(number: int, code: str) -> None:
    connection, stream = opened(b"x")
    feed(connection, frame(RST_STREAM, 0, 1, struct.pack(">I", number)))
    assert status(stream)[0] == code
    assert connection.streams == {}


def test_an_answer_before_all_was_sent_ends_the_call() -> None:
    connection, stream = opened(bytes(200_000))
    taken(connection)
    failed = [*FIRST, ("grpc-status", "8"), ("grpc-message", "full")]
    feed(connection, frame(HEADERS, END_HEADERS | END_STREAM, 1, block(failed)))
    assert status(stream) == ("RESOURCE_EXHAUSTED", "full")
    assert taken(connection) == [(RST_STREAM, 0, 1, struct.pack(">I", 8))]


def test_a_server_that_goes_away_finishes_what_it_has_begun() -> None:
    connection, first = opened(b"1")
    second = connection.open(header_block("/s/M", "h:1"), None, [b"2"])
    feed(connection, frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0) + b"max_age"))
    assert status(second)[0] == "UNAVAILABLE"
    with pytest.raises(ConnectionBroken, match="max_age"):
        connection.open(header_block("/s/M", "h:1"), None, [b"3"])
    feed(connection, answer(1, b"late"))
    assert bytes(first.answer()) == b"late"


def test_a_call_that_is_given_up_hears_no_more() -> None:
    connection, stream = opened(b"1")
    taken(connection)
    begin = frame(DATA, 0, 1, message(bytes(40_000)))
    feed(connection, frame(HEADERS, END_HEADERS, 1, block(FIRST)) + begin[:20_000])
    connection.cancel(stream)
    assert taken(connection) == [(RST_STREAM, 0, 1, struct.pack(">I", 8))]
    other = connection.open(header_block("/s/M", "h:1"), None, [b"2"])
    feed(connection, begin[20_000:] + answer(3, b"mine"))
    assert connection.finished == [other]
    assert bytes(other.answer()) == b"mine"


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4000,
        frame(PUSH, END_HEADERS, 1, bytes(10)),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(RST_STREAM, 0, 1, b"\0"),
        frame(GOAWAY, 0, 0, b"\0\0"),
        frame(WINDOW_UPDATE, 0, 0, b""),
        frame(SETTINGS, 0, 0, b"123"),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        frame(HEADERS, 0, 1, block(FIRST)) + frame(DATA, 0, 1, b"x"),
        frame(DATA, PADDED, 1, b"\x09abc"),
        frame(HEADERS, PADDED | END_HEADERS, 1, b""),
        frame(HEADERS, END_HEADERS, 1, block(FIRST)) + frame(DATA, 0, 1, message(b"x", 1)),
    ],
)
def test_what_breaks_the_protocol_breaks_the_connection(content: bytes) -> None:
    connection, _ = opened(b"1")
    with pytest.raises(ConnectionBroken):
        feed(connection, content)


def test_the_end_of_the_connection_is_said() -> None:
    connection, _ = opened(b"1")
    with pytest.raises(ConnectionBroken, match="closed"):
        connection.received(0, connection.buffer())


def test_frames_of_unknown_kinds_are_passed_over() -> None:
    connection, stream = opened(b"1")
    feed(connection, frame(0x10, 0, 0, b"what") + answer(1, b"fine"))
    assert bytes(stream.answer()) == b"fine"
