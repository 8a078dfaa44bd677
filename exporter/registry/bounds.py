"""Limits of what one step may exchange with a registry: seconds, bytes and hosts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from urllib3.util import parse_url

from exporter.errors import ConflictError, UnavailableError, UsageError
from exporter.text.redaction import redact

__all__ = [
    "SLOWEST",
    "Exchange",
    "allowed_stores",
    "current",
    "every_page",
    "exchange",
    "origin",
]

_SECONDS = 60.0

MAX_BYTES = 64 << 20
"""The most bytes that the answers to one step may have, artifacts aside."""

SLOWEST = 64 << 10
"""Bytes per second below which a transfer of artifacts counts as stalled."""

_PORTS = {"http": 80, "https": 443}


def _seconds() -> float:
    """Return how many seconds one answer may take."""
    text = os.environ.get("STLAB_REGISTRY_TIMEOUT", "")
    try:
        found = float(text or _SECONDS)
    except ValueError:
        found = 0.0
    if not 0 < found < threading.TIMEOUT_MAX:
        raise UsageError(
            f"STLAB_REGISTRY_TIMEOUT is {text!r}, not a number of seconds above 0",
            hint=f"Unset it for {_SECONDS:g} seconds.",
        )
    return found


def allowed_stores() -> tuple[str, ...]:
    """Return the further stores that may be accessed, from ``STLAB_ARTIFACT_STORES``."""
    return tuple(os.environ.get("STLAB_ARTIFACT_STORES", "").split())


def origin(url: str) -> tuple[str, str, int | None]:
    """Return the scheme, host and port that urllib3 connects to for a URL.

    Raises:
        ValueError: The text is not a URL.
    """
    found = parse_url(url)
    scheme = found.scheme or ""
    return scheme, found.host or "", found.port or _PORTS.get(scheme)


@dataclass(slots=True)
class Exchange:
    """The limits of one step with the registry of a URI, and the bytes received so far.

    Attributes:
        seconds: How long one answer may take.
        max_bytes: The most bytes that may arrive in total.
        transfer: Whether artifacts are transferred: every byte then extends the time.
    """

    uri: str
    seconds: float
    max_bytes: int
    transfer: bool = False
    received: int = 0

    def check(self, url: str) -> None:
        """Reject a request to any host but the registry and the allowed stores.

        Raises:
            ConflictError: The URL is on another host; the kind is ``address``.
        """
        own = (self.uri, os.environ.get("MLFLOW_REGISTRY_URI", ""), *allowed_stores())
        with suppress(ValueError):
            if origin(url) in {origin(one) for one in own if one.lower().startswith("http")}:
                return
        raise ConflictError(
            f"the registry at {redact(self.uri)} leads to {redact(url)}, which is not followed: "
            "credentials would go to another host",
            hint="If you trust that address, add it to STLAB_ARTIFACT_STORES.",
            kind="address",
        )

    def count(self, size: int, what: str) -> None:
        """Count bytes that have arrived.

        Raises:
            UnavailableError: There are more than ``max_bytes``.
        """
        self.received += size
        if self.received > self.max_bytes:
            raise UnavailableError(
                f"the registry at {redact(self.uri)} sends more than {self.max_bytes:,} bytes "
                f"for {what}",
                hint="Check that MLFLOW_TRACKING_URI is the address of an MLflow server.",
            )

    def timed_out(self, what: str) -> UnavailableError:
        """Return the error for an answer that is not complete in time."""
        slow = f", at less than {SLOWEST >> 10} KiB a second" if self.transfer else ""
        return UnavailableError(
            f"the registry at {redact(self.uri)} did not complete {what} within "
            f"{self.seconds:g} s{slow}",
            hint="Check MLFLOW_TRACKING_URI and retry later; STLAB_REGISTRY_TIMEOUT sets the "
            "seconds.",
        )


current: ContextVar[Exchange | None] = ContextVar("current", default=None)
"""The exchange of the current block; None outside of one."""


@contextmanager
def exchange(uri: str, *, max_bytes: int = MAX_BYTES, transfer: bool = False) -> Iterator[Exchange]:
    """Limit what MLflow exchanges with a registry in a block; see `Exchange`.

    Raises:
        UsageError: ``STLAB_REGISTRY_TIMEOUT`` is not a number of seconds above 0.
    """
    limits = Exchange(uri, _seconds(), max_bytes, transfer)
    token = current.set(limits)
    try:
        yield limits
    finally:
        current.reset(token)


def every_page(search: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """Yield the items of all pages of one of MLflow's searches.

    Raises:
        UnavailableError: The pages do not end within the limit of `exchange`.
    """
    began, token = time.monotonic(), None
    while True:
        page = search(*arguments, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
        bounds = current.get()
        if bounds is not None and time.monotonic() - began > bounds.seconds:
            raise bounds.timed_out("a search: its pages do not end")
