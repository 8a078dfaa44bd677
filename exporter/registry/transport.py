"""Bounds every answer of a registry: in time, in bytes, and to the registry's own address.

MLflow waits for each byte of an answer, takes as many as come, and follows redirects. Within
`exchange` its requests go through a session that cuts a connection at the deadline, whatever it
waits for; elsewhere MLflow is left as it is.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, parse_url

from exporter.errors import ConflictError
from exporter.registry.bounds import SLOWEST, current, exchange
from exporter.text.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.registry.bounds import Exchange

__all__ = ["install", "knock"]

_CHUNK = 64 << 10
_BACKOFF_SECONDS = 2.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})

_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)


def install() -> None:
    """Let MLflow use this session within `exchange`."""
    from mlflow.utils import request_utils

    # A server would choose the hosts that parts of files are sent to and taken from.
    for direction in ("UPLOAD", "DOWNLOAD"):
        os.environ.setdefault(f"MLFLOW_ENABLE_PROXY_MULTIPART_{direction}", "false")
    original = request_utils._get_request_session  # noqa: SLF001 - MLflow has no public hook
    if getattr(original, "__module__", "") == __name__:
        return

    def session(max_retries: int, *others: Any, **named: Any) -> requests.Session:
        if current() is None:
            made: requests.Session = original(max_retries, *others, **named)
            return made
        return _session(max_retries, os.getpid())

    request_utils._get_request_session = session  # noqa: SLF001


def knock(uri: str, path: str, most_seconds: float) -> None:
    """Send a registry a request, whatever it answers.

    Args:
        uri: The registry.
        path: The path below it.
        most_seconds: How long the answer's headers may take.

    Raises:
        requests.RequestException: Nothing answers.
        UnavailableError: The headers are not complete in time.
    """
    # A redirect is an answer as well, as single sign-on gives it; it is not followed.
    with exchange(uri) as bounds, suppress(ConflictError):
        bounds.seconds = min(bounds.seconds, most_seconds)
        _session(0, os.getpid()).get(f"{uri.rstrip('/')}{path}", stream=True).close()


class _CutError(Exception):
    """A connection is opened for a request whose time is over; urllib3 knows no such error."""


class _Watch:
    """Cuts the connection of one request when its time is over."""

    def __init__(self, exchange: Exchange, sent: int) -> None:
        self._exchange = exchange
        self._moved = sent
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.cut = False
        threading.Thread(target=self._run, name="stlab-registry-deadline", daemon=True).start()

    def hold(self, connection: socket.socket | None) -> None:
        """Take the connection that the request is sent on.

        A copy of the descriptor, since TLS takes the socket's own away.

        Raises:
            _CutError: The time is over.
        """
        with self._lock:
            self._drop()
            if connection is not None and not self.cut:
                self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        if self.cut:
            raise _CutError

    def move(self, size: int) -> None:
        """Count bytes of a transfer, which give it time."""
        self._moved += size

    def end(self) -> None:
        """Stop to watch."""
        self._ended.set()
        with self._lock:
            self._drop()

    def _left(self) -> float:
        allowed = self._exchange.seconds
        if self._exchange.transfer:
            allowed += self._moved / SLOWEST
        return allowed - (time.monotonic() - self._began)

    def _run(self) -> None:
        while not self._ended.wait(max(self._left(), 0.0)):
            if self._left() > 0:
                continue
            with self._lock:
                self.cut = True
                if self._socket is not None:
                    with suppress(OSError):
                        self._socket.shutdown(socket.SHUT_RDWR)
                self._drop()
            return

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _hold(connection: socket.socket | None) -> None:
    watch = _watch.get()
    if watch is not None:
        watch.hold(connection)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _hold(made)
        return made

    def request(self, *arguments: Any, **named: Any) -> None:
        _hold(self.sock)
        super().request(*arguments, **named)


# urllib3's connection with TLS derives from the one without: what is added to that comes between.
class _TLSConnection(HTTPSConnection, _Connection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager


@lru_cache(maxsize=8)
def _session(retries: int, _process: int) -> _Session:
    session = _Session()
    session.retries = retries
    # Answers with an error are handled below: urllib3 would read all of them, and wait for as long
    # as the server's Retry-After says.
    broken = Retry(
        retries,
        status=0,
        allowed_methods=None,
        backoff_factor=_BACKOFF_SECONDS,
        respect_retry_after_header=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(max_retries=broken))
    return session


class _Session(requests.Session):
    """Sends requests of an `Exchange`."""

    retries = 0

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return None: requests would read the whole body of a redirect before it looks further."""
        return None

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, and read the whole answer unless it is a stream.

        Raises:
            ConflictError: It goes, or leads, to another host.
            UnavailableError: The answer takes too long, or is too large.
        """
        bounds = current()
        if bounds is None:
            raise RuntimeError("a request to a registry outside an exchange")
        bounds.check(request.url or "")
        what = f"{request.method} {parse_url(request.url or '').path or '/'}"
        stream = options.pop("stream", False)
        options["allow_redirects"] = False
        options["timeout"] = min(options.get("timeout") or bounds.seconds, bounds.seconds)
        watch = _Watch(bounds, int(request.headers.get("Content-Length") or 0))
        token = _watch.set(watch)
        streams = False
        try:
            response = self._send_again(request, **options)
            if watch.cut:  # what was cut among the headers looks like their end
                response.close()
                raise bounds.hung(what)
            if response.is_redirect:
                target = urljoin(response.url, response.headers["location"])
                response.close()
                raise _redirects(bounds, target)
            chunks = _chunks(response, bounds, watch, what)
            if stream:
                response.iter_content = lambda *_, **__: chunks  # type: ignore[method-assign]
                response.close = partial(_close, response.close, watch)  # type: ignore[method-assign]
                streams = True
            else:
                response._content = b"".join(chunks)  # noqa: SLF001 - as requests itself does
                response._content_consumed = True  # noqa: SLF001
        except (requests.RequestException, HTTPError, OSError, _CutError) as error:
            if watch.cut:
                raise bounds.hung(what) from error
            raise
        else:
            return response
        finally:
            _watch.reset(token)
            if not streams:
                watch.end()

    def _send_again(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request until its answer is not one that passes, as MLflow's session does."""
        response = super().send(request, stream=True, **options)
        # A file that was sent is at its end.
        for attempt in range(0 if hasattr(request.body, "read") else self.retries):
            if response.status_code not in _PASSING:
                break
            response.close()
            time.sleep(_BACKOFF_SECONDS * attempt)
            response = super().send(request, stream=True, **options)
        return response


def _close(close: Callable[[], None], watch: _Watch) -> None:
    watch.end()
    close()


def _chunks(
    response: requests.Response, bounds: Exchange, watch: _Watch, what: str
) -> Iterator[bytes]:
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            bounds.take(len(chunk), what)
            watch.move(len(chunk))
            yield chunk
        if watch.cut:
            raise bounds.hung(what)
    except (HTTPError, OSError) as error:
        if watch.cut:
            raise bounds.hung(what) from error
        raise requests.ConnectionError(error) from error
    finally:
        watch.end()
        response.close()


def _redirects(bounds: Exchange, target: str) -> ConflictError:
    return ConflictError(
        f"the registry at {redact(bounds.uri)} redirects to {redact(target)}, which is not "
        "followed",
        hint="Set MLFLOW_TRACKING_URI to the address that it leads to, if you trust that one.",
        kind="address",
    )
