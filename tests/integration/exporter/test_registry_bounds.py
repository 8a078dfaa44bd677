"""A registry that drips, floods or never ends is unavailable within the time that is set for it.

The servers are real sockets on loopback. No figure of a clock is asserted: without a bound each of
these would go on until the test's own time limit, or for ever.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from exporter.errors import StlabError, UnavailableError, UsageError
from exporter.registry import Registry
from exporter.registry import bounds as registry_bounds
from exporter.registry.artifacts import download
from exporter.registry.transport import install
from tests.support.running import command

Send = Callable[[bytes], None]
Talk = Callable[[str, Send, threading.Event], None]


@contextmanager
def speaking(talk: Talk) -> Iterator[str]:
    """Run a server that answers every request as `talk` does; yields its address."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(65536)
                if not received:
                    return
                request += received
            talk(request.split()[1].decode(), connection.sendall, over)

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def whole(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def drip(send: Send, over: threading.Event, first: bytes, drop: bytes = b" ") -> None:
    """Send a beginning, and then a little again and again: no pause is long, and none the last."""
    send(first)
    while not over.wait(0.05):
        send(drop)


def flood(send: Send, over: threading.Event, first: bytes, wave: bytes = b" " * 65536) -> None:
    send(first)
    while not over.is_set():
        send(wave)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"

HANGS: dict[str, Talk] = {
    "status line": lambda _p, send, over: drip(send, over, b"HTTP/1.1 2", b"0"),
    "header": lambda _p, send, over: drip(send, over, b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "interim": lambda _p, send, over: drip(send, over, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "length": lambda _p, send, over: drip(send, over, HEAD % 9999),
    "endless": lambda _p, send, over: drip(send, over, b"HTTP/1.1 200 OK\r\n\r\n{"),
    "chunks": lambda _p, send, over: drip(
        send, over, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"
    ),
    "chunk header": lambda _p, send, over: drip(
        send, over, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"
    ),
    "error": lambda _p, send, over: drip(
        send, over, b"HTTP/1.1 503 No\r\nRetry-After: 9999\r\n\r\n"
    ),
    "silence": lambda _p, _send, over: bool(over.wait()),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STLAB_REGISTRY_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    install()


def registry(uri: str) -> Registry:
    return Registry(uri, MlflowClient(tracking_uri=uri))


def calls(client: Registry) -> tuple[Callable[[], object], ...]:
    return client.models, lambda: client.tag("net", 1, {"stlab.parity": "passed"})


@pytest.mark.parametrize("how", HANGS)
def test_a_registry_that_drips(how: str) -> None:
    with speaking(HANGS[how]) as uri:
        before = threading.active_count()
        for call in calls(registry(uri)):
            with pytest.raises(UnavailableError) as gone:
                call()
            assert gone.value.exit_code == 6
            assert uri in gone.value.message
            # What hung, but where nothing but silence came, which the socket itself ends.
            assert how == "silence" or "/api/2.0/mlflow/" in gone.value.message
        for thread in threading.enumerate():
            if thread.name == "stlab-registry-deadline":
                thread.join()
        assert threading.active_count() <= before + 4  # the server's own, one a request


def test_connecting_to_a_registry_that_drips() -> None:
    for talk in (HANGS["header"], HANGS["interim"], HANGS["silence"]):
        with speaking(talk) as uri, pytest.raises(UnavailableError):
            Registry.connect(uri)
    # What /health answers is not read: it answers.
    with speaking(HANGS["endless"]) as uri:
        Registry.connect(uri)


FLOODS: dict[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1200000000\r\n\r\n{",
    "endless": b"HTTP/1.1 200 OK\r\n\r\n{",
    "error": b"HTTP/1.1 500 No\r\nContent-Length: 1200000000\r\n\r\n",
    "redirect": b"HTTP/1.1 302 No\r\nLocation: /x\r\nContent-Length: 1200000000\r\n\r\n",
}


@pytest.mark.parametrize("how", FLOODS)
def test_a_registry_that_floods(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STLAB_REGISTRY_TIMEOUT", "60")
    sent = []

    def talk(_path: str, send: Send, over: threading.Event) -> None:
        def count(data: bytes) -> None:
            send(data)
            sent.append(len(data))

        flood(count, over, FLOODS[how])

    with speaking(talk) as uri, pytest.raises(StlabError) as gone:
        registry(uri).models()
    assert gone.value.exit_code == (5 if how == "redirect" else 6)
    assert sum(sent) < 4 * registry_bounds.MAX_BYTES


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_names_a_time_is_asked_again_at_once(status: int) -> None:
    """It may name any time, and the next answer is as good as after an error without one."""
    asked = []

    def talk(path: str, send: Send, _over: threading.Event) -> None:
        asked.append(path)
        if len(asked) == 1:
            head = f"HTTP/1.1 {status} Later\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
            send(head.encode())
        else:
            send(whole(b"{}"))

    with speaking(talk) as uri:
        assert registry(uri).models() == []
    assert len(asked) == 2


def test_headers_and_compressed_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setenv("STLAB_REGISTRY_TIMEOUT", "60")
    bomb = gzip.compress(b" " * (2 * registry_bounds.MAX_BYTES))
    answer = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    for talk in (
        lambda _p, send, over: flood(send, over, b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 99),
        lambda _p, send, over: flood(send, over, b"HTTP/1.1 200 OK\r\nX: "),
        lambda _p, send, _over: send(answer.encode() + bomb),
    ):
        with speaking(talk) as uri, pytest.raises(UnavailableError):
            registry(uri).models()


def test_pages_without_end() -> None:
    """Every page is whole, quick and small, and says that there is another one."""
    pages = iter(range(10**9))

    def talk(path: str, send: Send, _over: threading.Event) -> None:
        name = "registered_models" if "registered-models" in path else "model_versions"
        send(whole(json.dumps({name: [], "next_page_token": str(next(pages))}).encode()))

    with speaking(talk) as uri, pytest.raises(UnavailableError) as gone:
        registry(uri).models()
    assert "pages" in gone.value.message


def artifacts(size: int, body: Callable[[Send, threading.Event], None]) -> Talk:
    """Serve an artifact of one file, of a size that is listed, and of a body that is not."""

    def talk(path: str, send: Send, over: threading.Event) -> None:
        if "?path=" in path:
            listed = {"path": "file", "is_dir": False, "file_size": size}
            send(whole(json.dumps({"files": [listed]}).encode()))
        else:
            body(send, over)

    return talk


def test_an_artifact_that_drips_or_grows(tmp_path: Path) -> None:
    for number, (size, body) in enumerate((
        (10**6, lambda send, over: drip(send, over, HEAD % 10**6)),
        (10**6, lambda send, over: drip(send, over, b"HTTP/1.1 200 OK\r\nX: ", b"x")),
        (4, lambda send, over: flood(send, over, HEAD % 1_200_000_000)),
        (4, lambda send, over: flood(send, over, b"HTTP/1.1 200 OK\r\n\r\n")),
    )):  # fmt: skip
        folder = tmp_path / str(number)
        with speaking(artifacts(size, body)) as uri, pytest.raises(UnavailableError):
            download(registry(uri), "mlflow-artifacts:/net", folder, "it", "look")
        taken = sum(path.stat().st_size for path in folder.rglob("*"))
        assert taken < 1 << 20


def test_an_artifact_that_comes_steadily_may_take_longer_than_an_answer(tmp_path: Path) -> None:
    piece, pieces = b"x" * (256 << 10), 8

    def body(send: Send, over: threading.Event) -> None:
        send(HEAD % (len(piece) * pieces))
        for _ in range(pieces):
            send(piece)
            over.wait(0.25)

    with speaking(artifacts(len(piece) * pieces, body)) as uri:
        folder = download(registry(uri), "mlflow-artifacts:/net", tmp_path / "net", "it", "look")
    assert (folder / "file").read_bytes() == piece * pieces


def test_an_artifact_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 0, 10**6))
    asked = []

    def body(send: Send, _over: threading.Event) -> None:
        asked.append(True)
        send(whole(b"x"))

    with speaking(artifacts(10**9, body)) as uri, pytest.raises(UnavailableError) as full:
        download(registry(uri), "mlflow-artifacts:/net", tmp_path / "net", "it", "look")
    assert "1,000,000 are free" in full.value.message
    assert asked == []


def test_an_artifact_of_endless_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.registry.artifacts._MAX_ENTRIES", 3000)

    def talk(_path: str, send: Send, _over: threading.Event) -> None:
        entries = [{"path": f"d{n}", "is_dir": True} for n in range(1000)]
        send(whole(json.dumps({"files": entries}).encode()))

    with speaking(talk) as uri, pytest.raises(UnavailableError):
        download(registry(uri), "mlflow-artifacts:/net", tmp_path / "net", "it", "look")


def test_an_upload_that_is_taken_a_byte_at_a_time(tmp_path: Path) -> None:
    """The server's window is full, and it reads no further."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from exporter.registry.bounds import exchange
    from exporter.registry.errors import translate_errors

    (tmp_path / "file").write_bytes(b"x" * (32 << 10))
    with speaking(HANGS["silence"]) as uri:
        store = get_artifact_repository("mlflow-artifacts:/net", tracking_uri=uri)
        with (
            pytest.raises(UnavailableError),
            translate_errors(uri),
            exchange(uri, transfer=True),
        ):
            store.log_artifact(str(tmp_path / "file"))


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_a_time_that_is_none(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("STLAB_REGISTRY_TIMEOUT", seconds)
    with pytest.raises(UsageError):
        registry("http://127.0.0.1:9").models()


def test_the_command_ends(tmp_path: Path) -> None:
    """Exit 6 with what hung, and no thread that keeps the process."""

    def talk(path: str, send: Send, over: threading.Event) -> None:
        if path == "/health":
            send(whole(b"OK"))
        else:
            HANGS["header"](path, send, over)

    with speaking(talk) as uri:
        settings = {"MLFLOW_TRACKING_URI": uri, "STLAB_REGISTRY_TIMEOUT": "1"}
        ran = command(tmp_path, "net", "--alias", "dev", "--json", **settings)
    assert ran.code == 6, ran.stderr
    assert "/api/2.0/mlflow/registered-models/get" in ran.result["error"]["message"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
