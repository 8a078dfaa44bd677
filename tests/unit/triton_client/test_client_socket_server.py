"""Both clients against a bare socket, for what no gRPC library would send."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.triton_client.fake_triton import Blocking

    Serve = Callable[[socket.socket, threading.Event], None]
    Listen = Callable[[Serve], str]

DEADLINE = 0.5
SLACK = 5.0  # generous, and far from what a client that hangs would take
LOST = (errors.Unavailable, errors.DeadlineExceeded, errors.ServerError)
X = np.arange(4, dtype=np.float32).reshape(2, 2)

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4


class SocketServer:
    """Gives every connection to a function, in a thread of its own, and closes it after that."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._stopping = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                thread = threading.Thread(target=self._run, args=(end,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self, end: socket.socket) -> None:
        with end, suppress(OSError):
            self._serve(end, self._stopping)


@pytest.fixture
def listen() -> Iterator[Listen]:
    servers: list[SocketServer] = []

    def listen(serve: Serve) -> str:
        servers.append(SocketServer(serve))
        return servers[-1].url

    yield listen
    for server in servers:
        server.close()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, status: bytes = b"200", flags: int = END_HEADERS) -> bytes:
    content_type = b"\x0f\x10\x10application/grpc"
    return frame(HEADERS, flags, stream, b"\x08\x03" + status + content_type)


def trailers(stream: int, status: bytes = b"0") -> bytes:
    size = bytes((len(status),)) if len(status) < 127 else b"\x7f" + varint(len(status) - 127)
    block = b"\x00\x0bgrpc-status" + size + status
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def varint(value: int) -> bytes:
    low = bytes((value & 0x7F | (0x80 if value > 0x7F else 0),))
    return low + varint(value >> 7) if value > 0x7F else low


def message(body: bytes, *, length: int | None = None, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


def whole(stream: int, body: bytes) -> bytes:
    return headers(stream) + frame(DATA, 0, stream, message(body)) + trailers(stream)


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = end.recv(size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def http2(*answers: Callable[[int], bytes | tuple[bytes, str]]) -> Serve:
    """Answer the requests in turn, over all connections, the last answer again and again.

    An answer is bytes for the number of a stream; with ``"close"`` the connection is closed after
    it.
    """
    left = list(answers)

    def serve(end: socket.socket, _stopping: threading.Event) -> None:
        read(end, len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        end.sendall(frame(SETTINGS, 0, 0))
        while True:
            high, low, kind, flags, stream = struct.unpack(">BHBBI", read(end, 9))
            payload = read(end, high << 16 | low)
            if kind in (SETTINGS, PING) and not flags & ACK:
                end.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            if kind == DATA and flags & END_STREAM:
                answer = (left.pop(0) if len(left) > 1 else left[0])(stream)
                if isinstance(answer, tuple):
                    end.sendall(answer[0])
                    return
                end.sendall(answer)

    return serve


def metadata(stream: int) -> bytes:
    response = service_pb2.ModelMetadataResponse(name="m", versions=["1"], platform="p")
    response.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    response.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
    return whole(stream, response.SerializeToString())


def config(stream: int) -> bytes:
    response = service_pb2.ModelConfigResponse(
        config=model_config_pb2.ModelConfig(name="m", max_batch_size=4)
    )
    return whole(stream, response.SerializeToString())


def inferred() -> bytes:
    response = service_pb2.ModelInferResponse(model_name="m")
    response.outputs.add(name="y", datatype="FP32", shape=X.shape)
    response.raw_output_contents.append(X.tobytes())
    return bytes(response.SerializeToString())


BODY = inferred()


def closes_at_once(end: socket.socket, stopping: threading.Event) -> None:
    pass


def closes_when_asked(end: socket.socket, stopping: threading.Event) -> None:
    end.recv(1)


def resets_at_once(end: socket.socket, stopping: threading.Event) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def never_answers(end: socket.socket, stopping: threading.Event) -> None:
    stopping.wait(60)


def sends(*pieces: bytes) -> Serve:
    def serve(end: socket.socket, stopping: threading.Event) -> None:
        for piece in pieces:
            end.sendall(piece)
        stopping.wait(60)

    return serve


def never_ends(piece: bytes) -> Serve:
    def serve(end: socket.socket, stopping: threading.Event) -> None:
        while not stopping.wait(0.01):
            end.sendall(piece)

    return serve


def ask(connect: Blocking, url: str) -> Any:
    """Ask for the server's metadata, which fails in time and in a way that callers expect."""
    client = connect(url, timeout=DEADLINE)
    started = time.monotonic()
    with pytest.raises(LOST) as caught:
        connect.run(client.metadata())
    assert time.monotonic() - started < DEADLINE + SLACK
    assert caught.value.server == url
    return caught.value


@pytest.mark.parametrize("serve", [closes_at_once, closes_when_asked, resets_at_once])
def test_a_server_that_hangs_up(serve: Serve, listen: Listen, connect: Blocking) -> None:
    assert isinstance(ask(connect, listen(serve)), errors.Unavailable)


@pytest.mark.parametrize("serve", [never_answers, sends(frame(SETTINGS, 0, 0))])
def test_a_server_that_says_nothing(serve: Serve, listen: Listen, connect: Blocking) -> None:
    url = listen(serve)
    assert not isinstance(ask(connect, url), errors.ServerError)
    client = connect(url)
    assert connect.run(client.live(deadline=0.2)) is False
    with pytest.raises(errors.DeadlineExceeded, match="not ready"):
        connect.run(client.wait_until_ready(0.3))


@pytest.mark.parametrize(
    "serve",
    [
        sends(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        sends(b"\x15\x03\x01\x00\x02\x02\x46"),
        sends(bytes(range(256)) * 8),
        sends(b"\xff" * 100_000),
        sends(b"\x00" * 100_000),
        sends(frame(SETTINGS, 0, 0, b"\x00")),
        sends(frame(SETTINGS, 0, 0), frame(GOAWAY, 0, 0, b"\x00")),
        sends(frame(SETTINGS, 0, 0), frame(HEADERS, END_HEADERS, 1, b"\xff" * 9)),
        sends(frame(SETTINGS, 0, 0), frame(PING, 0, 0, b"")),
        sends(frame(SETTINGS, 0, 0), b"\x00\x00"),
    ],
    ids=[
        "HTTP/1.1", "TLS alert", "bytes", "ones", "zeros", "settings cut", "goaway cut", "headers",
        "ping cut", "frame cut",
    ],
)  # fmt: skip
def test_a_server_that_speaks_no_http2(serve: Serve, listen: Listen, connect: Blocking) -> None:
    ask(connect, listen(serve))


@pytest.mark.parametrize(
    "piece",
    [b"\x00" * 9000, frame(SETTINGS, 0, 0) + frame(PING, 0, 0, bytes(8)) * 10],
    ids=["zeros", "pings"],
)
def test_a_server_that_never_ends(piece: bytes, listen: Listen, connect: Blocking) -> None:
    ask(connect, listen(never_ends(piece)))


BROKEN: dict[str, Callable[[int], bytes | tuple[bytes, str]]] = {
    "closed before the headers": lambda n: (b"", "close"),
    "closed behind the headers": lambda n: (headers(n), "close"),
    "closed within the headers": lambda n: (headers(n)[:-3], "close"),
    "closed within the message": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY)[:-5]),
        "close",
    ),
    "closed within a frame": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY))[:-5],
        "close",
    ),
    "closed within the length": lambda n: (headers(n) + frame(DATA, 0, n, b"\0\0\0"), "close"),
    "closed before the trailers": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY)),
        "close",
    ),
    "closed within a huge message": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY, length=2**32 - 1)),
        "close",
    ),
    "silent behind the headers": headers,
    "silent within the message": lambda n: headers(n) + frame(DATA, 0, n, message(BODY)[:-5]),
    "half a message": lambda n: headers(n) + frame(DATA, 0, n, message(BODY)[:-5]) + trailers(n),
    "half a length": lambda n: headers(n) + frame(DATA, 0, n, b"\0\0\0") + trailers(n),
    "more than its length": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY) + b"\0") + trailers(n)
    ),
    "two messages": lambda n: headers(n) + frame(DATA, 0, n, message(BODY) * 2) + trailers(n),
    "no message": lambda n: headers(n) + trailers(n),
    "no status": lambda n: headers(n) + frame(DATA, END_STREAM, n, message(BODY)),
    "no number as status": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY)) + trailers(n, b"fine")
    ),
    "a status without end": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY)) + trailers(n, b"9" * 5000)
    ),
    "an unknown status": lambda n: headers(n) + trailers(n, b"99"),
    "compressed": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY, compressed=True)) + trailers(n)
    ),
    "reset": lambda n: frame(RST_STREAM, 0, n, b"\0\0\0\2"),
    "reset within the message": lambda n: (
        headers(n) + frame(DATA, 0, n, message(BODY)[:-5]) + frame(RST_STREAM, 0, n, b"\0\0\0\2")
    ),
    "refused": lambda n: frame(RST_STREAM, 0, n, b"\0\0\0\7"),
    "going away": lambda n: (frame(GOAWAY, 0, 0, bytes(8)), "close"),
    "going away within the message": lambda n: (
        headers(n)
        + frame(DATA, 0, n, message(BODY)[:-5])
        + frame(GOAWAY, 0, 0, struct.pack(">II", n, 0)),
        "close",
    ),
    "a proxy's error": lambda n: headers(n, b"502", END_HEADERS | END_STREAM),
    "a proxy's page": lambda n: (
        headers(n, b"503") + frame(DATA, END_STREAM, n, b"<html>try later</html>")
    ),
    "headers that cannot be read": lambda n: frame(HEADERS, END_HEADERS, n, b"\xff" * 9),
    "headers interrupted": lambda n: headers(n, flags=0) + frame(PING, 0, 0, bytes(8)),
    "padding beyond the frame": lambda n: headers(n) + frame(DATA, 0x8, n, b"\xff\0\0"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_not_whole(
    broken: Callable[[int], bytes], listen: Listen, connect: Blocking
) -> None:
    url = listen(http2(metadata, config, broken))
    model = connect.run(connect(url).model("m"))
    started = time.monotonic()
    with pytest.raises(LOST) as caught:
        connect.run(model.infer({"x": X}, deadline=DEADLINE))
    assert time.monotonic() - started < DEADLINE + SLACK
    assert (caught.value.server, caught.value.model) == (url, "m")


@pytest.mark.parametrize(
    "broken",
    ["closed before the headers", "closed within the message", "closed before the trailers"],
)
def test_an_answer_cut_off_once_is_asked_for_again(
    broken: str, listen: Listen, connect: Blocking
) -> None:
    url = listen(http2(metadata, config, BROKEN[broken], lambda n: whole(n, BODY)))
    np.testing.assert_array_equal(connect.infer(url, {"x": X}, deadline=20)["y"], X)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "noise",
    [b"\xff" * 100, frame(GOAWAY, 0, 0, bytes(8)), b"\x00\x00"],
    ids=["bytes", "goaway", "frame cut"],
)
def test_noise_behind_a_whole_answer_holds_nothing_up(
    noise: bytes, listen: Listen, connect: Blocking
) -> None:
    url = listen(http2(metadata, config, lambda n: (whole(n, BODY) + noise, "close")))
    model = connect.run(connect(url).model("m"))
    started = time.monotonic()
    with suppress(errors.Unavailable):
        answer = connect.run(model.infer({"x": X}, deadline=DEADLINE))
        np.testing.assert_array_equal(answer["y"], X)
    assert time.monotonic() - started < DEADLINE + SLACK


def test_an_answer_a_byte_at_a_time(listen: Listen, connect: Blocking) -> None:
    def split(stream: int) -> bytes:
        pieces = [message(BODY)[at : at + 1] for at in range(len(message(BODY)))]
        data = b"".join(frame(DATA, 0, stream, piece) for piece in pieces)
        return headers(stream) + data + trailers(stream)

    url = listen(http2(metadata, config, split))
    np.testing.assert_array_equal(connect.infer(url, {"x": X}, deadline=20)["y"], X)


UNPROCESSED: dict[str, Callable[[int], bytes | tuple[bytes, str]]] = {
    "refused": BROKEN["refused"],
    "going away": lambda n: frame(GOAWAY, 0, 0, bytes(8)),
    "too many calls": lambda n: frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"calm"),
}


@pytest.mark.parametrize("unprocessed", UNPROCESSED.values(), ids=UNPROCESSED)
def test_work_that_was_never_processed_is_sent_again_and_costs_no_retry(
    unprocessed: Callable[[int], bytes], listen: Listen, connect: Blocking
) -> None:
    url = listen(http2(metadata, config, *[unprocessed] * 5, lambda n: whole(n, BODY)))
    answer = connect.infer(url, {"x": X}, options={"retries": 0}, deadline=30)
    np.testing.assert_array_equal(answer["y"], X)


def test_a_step_of_a_sequence_that_was_never_processed_is_sent_again(
    listen: Listen, connect: Blocking
) -> None:
    url = listen(http2(metadata, config, BROKEN["refused"], lambda n: whole(n, BODY)))
    model = connect.run(connect(url, timeout=20).model("m"))
    answer = connect.run(model.sequence().infer({"x": X}))
    np.testing.assert_array_equal(answer["y"], X)


def test_a_stream_that_was_never_processed_is_sent_again(listen: Listen, connect: Blocking) -> None:
    streamed = service_pb2.ModelStreamInferResponse(
        infer_response=service_pb2.ModelInferResponse.FromString(BODY)
    ).SerializeToString()
    refused = BROKEN["refused"]
    url = listen(http2(metadata, config, refused, refused, lambda n: whole(n, streamed)))
    model = connect.run(connect(url, timeout=20).model("m"))
    (answer,) = connect.run(model.stream({"x": X}))
    np.testing.assert_array_equal(answer["y"], X)


def test_work_that_is_never_processed_ends_with_the_deadline(
    listen: Listen, connect: Blocking
) -> None:
    url = listen(http2(metadata, config, BROKEN["refused"]))
    model = connect.run(connect(url).model("m"))
    started = time.monotonic()
    with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
        connect.run(model.infer({"x": X}, deadline=DEADLINE))
    assert time.monotonic() - started < DEADLINE + SLACK
