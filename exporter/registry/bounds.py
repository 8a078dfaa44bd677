"""What one step may exchange with a registry: how long, how much, and with whom."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from urllib3.util import parse_url

from exporter.errors import ConflictError, UnavailableError, UsageError
from exporter.text.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "SLOWEST",
    "Exchange",
    "allowed_stores",
    "current",
    "every_page",
    "exchange",
    "origin",
    "seconds",
]

SECONDS = 60.0
"""How long one answer may take, by default."""

MOST_BYTES = 64 << 20
"""How many bytes the answers to one step may have, artifacts aside."""

SLOWEST = 64 << 10
"""Bytes a second below which a transfer of artifacts counts as hanging."""

_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


def seconds() -> float:
    """Return how long one answer may take.

    Raises:
        UsageError: ``STLAB_REGISTRY_TIMEOUT`` is not a number of seconds above 0.
    """
    text = os.environ.get("STLAB_REGISTRY_TIMEOUT", "")
    try:
        found = float(text or SECONDS)
    except ValueError:
        found = 0.0
    if not 0 < found < threading.TIMEOUT_MAX:
        raise UsageError(
            f"STLAB_REGISTRY_TIMEOUT is {text!r}, not a number of seconds above 0",
            hint=f"Unset it for {SECONDS:g} seconds.",
        )
    return found


def allowed_stores() -> tuple[str, ...]:
    """Return what ``STLAB_ARTIFACT_STORES`` names: stores that may be followed to as well."""
    return tuple(os.environ.get("STLAB_ARTIFACT_STORES", "").split())


def origin(url: str) -> Origin:
    """Return the scheme, host and port that a URL connects to, as urllib3 reads it.

    Raises:
        ValueError: It is not a URL.
    """
    found = parse_url(url)
    scheme = found.scheme or ""
    return scheme, found.host or "", found.port or _PORTS.get(scheme)


@dataclass(slots=True)
class Exchange:
    """What one step may exchange with a registry.

    Attributes:
        uri: The registry.
        seconds: How long one answer may take.
        most: How many bytes may arrive in all.
        transfer: Whether artifacts are moved, which get further time for every byte.
        received: How many bytes have arrived.
    """

    uri: str
    seconds: float
    most: int
    transfer: bool = False
    received: int = 0

    def check(self, url: str) -> None:
        """Refuse a request to anybody but the registry.

        Raises:
            ConflictError: The URL is that of another host.
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

    def take(self, size: int, what: str) -> None:
        """Count bytes that have arrived.

        Raises:
            UnavailableError: They are too many.
        """
        self.received += size
        if self.received > self.most:
            raise UnavailableError(
                f"the registry at {redact(self.uri)} sends more than {self.most:,} bytes "
                f"for {what}",
                hint="Check that MLFLOW_TRACKING_URI is that of an MLflow server.",
            )

    def hung(self, what: str) -> UnavailableError:
        """Return the error for an answer that is not complete in time."""
        slow = f", at less than {SLOWEST >> 10} KiB a second" if self.transfer else ""
        return UnavailableError(
            f"the registry at {redact(self.uri)} did not complete {what} within "
            f"{self.seconds:g} s{slow}",
            hint="Check MLFLOW_TRACKING_URI, and run the same command again once it answers; "
            "STLAB_REGISTRY_TIMEOUT sets the seconds.",
        )


_exchange: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def exchange(uri: str, *, most: int = MOST_BYTES, transfer: bool = False) -> Iterator[Exchange]:
    """Bound what MLflow exchanges with a registry in a block.

    Args:
        uri: The registry.
        most: How many bytes may arrive.
        transfer: Whether artifacts are moved.
    """
    begun = Exchange(uri, seconds(), most, transfer)
    token = _exchange.set(begun)
    try:
        yield begun
    finally:
        _exchange.reset(token)


def current() -> Exchange | None:
    """Return the exchange of the block that is run, if it is in one."""
    return _exchange.get()


def every_page(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield what all pages of a search hold, within `exchange`.

    Args:
        search: Returns the page of a token, the first of None.

    Raises:
        UnavailableError: The pages do not end in time.
    """
    began, token = time.monotonic(), None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return
        bounds = current()
        if bounds is not None and time.monotonic() - began > bounds.seconds:
            raise bounds.hung("a search: its pages do not end")
