"""Addresses: names that are never found, an HTTP port by mistake, proxies."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.triton_client.fake_name_server import FakeNameServer
from triton_client import AsyncTritonClient, TritonClient, errors
from triton_client._channel import channel_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.triton_client.fake_triton import Blocking, FakeTriton

DEADLINE = 0.5
SLACK = 4.0  # far less than the ten seconds and more that a look-up takes to give up
X = np.ones((1, 2), np.float32)


@pytest.fixture
def silent_names() -> Iterator[FakeNameServer]:
    names = FakeNameServer()
    yield names
    names.close()


class _Http(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_server(port: int = 0) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", port), _Http) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_deadline_holds_while_a_name_is_looked_up(
    silent_names: FakeNameServer, connect: Blocking
) -> None:
    client = connect(silent_names.target(8001), timeout=DEADLINE)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)):
            connect.run(client.metadata())
        assert time.monotonic() - started < DEADLINE + SLACK
    started = time.monotonic()
    assert connect.run(client.live(deadline=DEADLINE)) is False
    assert time.monotonic() - started < DEADLINE + SLACK
    assert silent_names.questions


def test_an_event_loop_ends_while_a_name_is_looked_up(silent_names: FakeNameServer) -> None:
    async def ask() -> None:
        async with AsyncTritonClient(silent_names.target(8001), timeout=DEADLINE) as client:
            await client.metadata()

    started = time.monotonic()
    with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)):
        asyncio.run(ask())
    assert time.monotonic() - started < DEADLINE + SLACK


def test_an_http_port_is_named_as_one(connect: Blocking) -> None:
    with http_server() as url:
        client = connect(url, timeout=20)
        with pytest.raises(
            errors.Unavailable, match="HTTP port; name its gRPC port, 8001"
        ) as caught:
            connect.run(client.metadata())
        assert caught.value.server == url
        assert caught.value.__cause__ is not None
        with pytest.raises(errors.DeadlineExceeded, match="not ready after 5 s; HTTP/1 answers"):
            connect.run(client.wait_until_ready(5))


@pytest.mark.parametrize("host", ["two..dots", "x" * 64])
def test_a_name_that_cannot_be_looked_up_is_no_http_port(connect: Blocking, host: str) -> None:
    """The look ends, in whose thread Python itself refuses the name."""
    client = connect(f"{host}:8001", timeout=20, retries=0)
    with pytest.raises(errors.Unavailable) as caught:
        connect.run(client.metadata())
    assert "HTTP" not in caught.value.message


def test_many_calls_that_fail_at_once_look_for_http_once() -> None:
    """Each look is a thread and a request to a server that is in trouble."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def close_each() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.close()
                    looks = [t for t in threading.enumerate() if t.name.endswith("http-port")]
                    seen.append(len(looks))

        threading.Thread(target=close_each, daemon=True).start()
        with TritonClient(f"127.0.0.1:{port}", timeout=10, retries=0) as client:

            def fail(_: int) -> None:
                with pytest.raises(errors.Unavailable):
                    client.metadata()

            with ThreadPoolExecutor(32) as pool:
                list(pool.map(fail, range(64)))
        listener.shutdown(socket.SHUT_RDWR)
    assert seen
    assert max(seen) <= 1


def test_a_server_that_once_spoke_grpc_is_not_taken_for_http(
    server: FakeTriton, connect: Blocking
) -> None:
    client = connect(server.url, timeout=5)
    connect.run(client.metadata())
    server.stop()
    with http_server(server.port), pytest.raises(errors.Unavailable) as caught:
        connect.run(client.metadata())
    assert "HTTP port" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("http://triton:8000", "usually port 8001"),
        ("triton", "has no port"),
        ("grpc://triton", "has no port"),
        ("[::1]", "has no port"),
        ("::1:8001", "without brackets"),
    ],
)
def test_what_is_no_address_says_what_is_wrong(connect: Blocking, url: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        connect(url)


class FakeProxy:
    """An HTTP proxy that opens tunnels to one port, whatever it is asked for."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._port = port
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                request = b""
                while b"\r\n\r\n" not in request:
                    request += near.recv(4096)
                self.asked.append(request.split(b"\r\n")[0].decode())
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += (near, far)
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=_pump, args=pair, daemon=True))
                    self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(
    server: FakeTriton, connect: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = FakeProxy(server.port)
    try:
        monkeypatch.setenv("http_proxy", proxy.url)
        for url in (server.url, f"localhost:{server.port}"):
            connect.run(connect(url).metadata())
        assert proxy.asked == []
        answer = connect.infer("triton.invalid:8001", {"x": X})
        np.testing.assert_array_equal(answer["y"], X)
        assert proxy.asked[0].startswith("CONNECT triton.invalid:8001")
    finally:
        proxy.close()


def test_loopback_is_what_needs_no_proxy() -> None:
    kinds: dict[str, Any] = {"tls": False, "credentials": None, "headers": None, "options": None}

    def proxied(url: str) -> bool:
        return "grpc.enable_http_proxy" not in dict(channel_settings(url, **kinds).options)

    assert not any(map(proxied, ["localhost:1", "127.0.0.2:1", "[::1]:1", "grpc://127.0.0.1:1"]))
    assert all(map(proxied, ["triton:1", "10.0.0.1:1", "[2001:db8::1]:1", "localhost.example:1"]))
