"""Bounds every answer of a registry: in time, in bytes, and to the registry's own host.

MLflow waits for every byte of an answer, accepts any number of them, and follows redirects. Within
`exchange` its requests go through the session below; outside of it MLflow is unchanged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, parse_url

from exporter.errors import ConflictError
from exporter.registry.bounds import Exchange, current, exchange
from exporter.registry.deadline import (
    Deadline,
    DeadlineAdapter,
    DeadlinePassedError,
    current_deadline,
)
from exporter.text.redaction import redact

__all__ = ["install", "probe"]

_CHUNK = 64 << 10
_BACKOFF_SECONDS = 2.0
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


def install() -> None:
    """Make MLflow use this session within `exchange`."""
    from mlflow.utils import request_utils

    # In multipart transfers the server chooses the hosts that parts are sent to and read from.
    for direction in ("UPLOAD", "DOWNLOAD"):
        os.environ.setdefault(f"MLFLOW_ENABLE_PROXY_MULTIPART_{direction}", "false")
    original = request_utils._get_request_session  # noqa: SLF001 - MLflow has no public hook
    if getattr(original, "__module__", "") == __name__:
        return

    def session(max_retries: int, *others: Any, **named: Any) -> requests.Session:
        if current.get() is None:
            made: requests.Session = original(max_retries, *others, **named)
            return made
        return _session(max_retries, os.getpid())

    request_utils._get_request_session = session  # noqa: SLF001


def probe(uri: str, path: str, timeout: float) -> None:
    """Send a registry a request, and ignore the answer, whose headers may take so many seconds.

    Raises:
        requests.RequestException: Nothing answers.
        UnavailableError: The headers are not complete in time.
    """
    # A redirect, as single sign-on sends it, is an answer too; it is not followed.
    with exchange(uri) as bounds, suppress(ConflictError):
        bounds.seconds = min(bounds.seconds, timeout)
        _session(0, os.getpid()).get(f"{uri.rstrip('/')}{path}", stream=True).close()


@lru_cache(maxsize=8)
def _session(retries: int, _process: int) -> _Session:
    session = _Session()
    session.retries = retries
    # Answers with an error status are retried in `_send_with_retries`: urllib3 would read their
    # whole body, and wait for as long as the server's Retry-After says.
    broken = Retry(
        retries,
        status=0,
        allowed_methods=None,
        backoff_factor=_BACKOFF_SECONDS,
        respect_retry_after_header=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, DeadlineAdapter(max_retries=broken))
    return session


class _Session(requests.Session):
    """Sends requests within the bounds of the current `Exchange`."""

    retries = 0

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return None: requests would read the whole body of a redirect before it follows it."""
        return None

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, and read the whole answer unless it is a stream.

        Raises:
            ConflictError: The request goes, or is redirected, to another host.
            UnavailableError: The answer takes too long, or is too large.
        """
        bounds = current.get()
        if bounds is None:
            raise RuntimeError("a request to a registry outside an exchange")
        bounds.check(request.url or "")
        what = f"{request.method} {parse_url(request.url or '').path or '/'}"
        stream = options.pop("stream", False)
        options["allow_redirects"] = False
        options["timeout"] = min(options.get("timeout") or bounds.seconds, bounds.seconds)
        deadline = Deadline(bounds, int(request.headers.get("Content-Length") or 0))
        token = current_deadline.set(deadline)
        try:
            with ExitStack() as closing:
                closing.callback(deadline.end)
                response = self._send_with_retries(request, **options)
                closing.callback(response.close)
                if deadline.passed:  # headers that were cut off look complete
                    raise bounds.timed_out(what)
                if response.is_redirect:
                    target = urljoin(response.url, response.headers["location"])
                    raise ConflictError(
                        f"the registry at {redact(bounds.uri)} redirects to {redact(target)}, "
                        "which is not followed",
                        hint="If you trust that address, set MLFLOW_TRACKING_URI to it.",
                        kind="address",
                    )
                chunks = _chunks(response, bounds, deadline, what)
                if stream:
                    response.iter_content = lambda *_, **__: chunks  # type: ignore[method-assign]
                    response.close = closing.pop_all().close  # type: ignore[method-assign]
                else:
                    response._content = b"".join(chunks)  # noqa: SLF001 - as requests itself does
                    response._content_consumed = True  # noqa: SLF001
                return response
        except (requests.RequestException, HTTPError, OSError, DeadlinePassedError) as error:
            if deadline.passed:
                raise bounds.timed_out(what) from error
            raise
        finally:
            current_deadline.reset(token)

    def _send_with_retries(
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        """Send a request, again while its answer is a transient error, as MLflow's session does."""
        response = super().send(request, stream=True, **options)
        # The body of an upload was read to its end and cannot be sent again.
        for attempt in range(0 if hasattr(request.body, "read") else self.retries):
            if response.status_code not in _TRANSIENT:
                break
            response.close()
            time.sleep(_BACKOFF_SECONDS * attempt)
            response = super().send(request, stream=True, **options)
        return response


def _chunks(
    response: requests.Response, bounds: Exchange, deadline: Deadline, what: str
) -> Iterator[bytes]:
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            bounds.count(len(chunk), what)
            deadline.extend(len(chunk))
            yield chunk
        if deadline.passed:
            raise bounds.timed_out(what)
    except (HTTPError, OSError) as error:
        if deadline.passed:
            raise bounds.timed_out(what) from error
        raise requests.ConnectionError(error) from error
    finally:
        response.close()
