"""HTTP servers on loopback that remember who asked them for what."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Listener:
    """A server.

    Attributes:
        port: Where it listens.
        requests: Method and path of every request.
        credentials: The Authorization headers that came.
        answer: What it answers to a method and a path.
    """

    port: int
    requests: list[tuple[str, str]] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    answer: Callable[[str, str], Answer] = lambda _method, _path: (200, {}, b"{}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        self.requests.clear()
        self.credentials.clear()


def one_file(_method: str, path: str) -> Answer:
    """Answer as an MLflow server whose every folder of artifacts holds one file."""
    if urlsplit(path).path == ARTIFACTS:
        body = json.dumps({"files": [{"path": "kept", "is_dir": False, "file_size": 4}]})
        return 200, {"Content-Type": "application/json"}, body.encode()
    return 200, {}, b"kept"


@contextmanager
def listening() -> Iterator[Listener]:
    """Run a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            listener.requests.append((self.command, self.path))
            if "Authorization" in self.headers:
                listener.credentials.append(self.headers["Authorization"])
            status, headers, body = listener.answer(self.command, self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        listener = Listener(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()
