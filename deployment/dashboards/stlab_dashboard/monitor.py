"""Reads a Triton server's counters, once for all visitors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Condition
from typing import Any

import httpx
from cachetools import TTLCache, cached
from starlette.concurrency import run_in_threadpool

from exporter.commands.infer.command import first_address
from exporter.errors import StlabError
from exporter.triton.connection import connect
from stlab_dashboard.metrics import Counters, Key, Rates, rates, read_metrics_page, read_statistics
from stlab_dashboard.settings import Settings

__all__ = ["Monitor", "ServerView"]

_SECONDS = 3.0
_HISTORY = 90


@dataclass(frozen=True, slots=True)
class ServerView:
    """The state of the server.

    Attributes:
        server: Its name and version; empty where it does not answer.
        error: Why it does not answer, in a sentence; empty where it does.
        source: Where the counters come from.
        counters: Everything counted since the server started.
        rates: The rates since the reading before; empty after the first one.
        history: Requests a second of all versions, the latest last, as (monotonic s, rate).
    """

    server: str = ""
    error: str = ""
    source: str = ""
    counters: Mapping[Key, Counters] | None = None
    rates: Mapping[Key, Rates] | None = None
    history: tuple[tuple[float, float], ...] = ()


class Monitor:
    """Reads one server."""

    def __init__(self, settings: Settings) -> None:
        self._url = first_address(settings.triton_url)
        self._metrics_url = settings.triton_metrics_url
        self._view: Any = cached(
            TTLCache(1, settings.refresh_seconds * 0.9), condition=Condition()
        )(self._read)
        self._last: tuple[float, Mapping[Key, Counters]] | None = None
        self._history: deque[tuple[float, float]] = deque(maxlen=_HISTORY)

    async def view(self) -> ServerView:
        """Return the state; a server that does not answer is an error in it."""
        view: ServerView = await run_in_threadpool(self._view)
        return view

    def _read(self) -> ServerView:
        try:
            with connect(self._url, option="STLAB_TRITON_URL", timeout=_SECONDS) as client:
                about = client.metadata()
                counters = _metrics_page(self._metrics_url)
                source = "its metrics page"
                if counters is None:
                    counters = read_statistics(client.statistics())
                    source = "its statistics by gRPC, since its metrics page does not answer"
        except StlabError as error:
            self._last = None
            return ServerView(error=error.message, history=tuple(self._history))
        now, found = time.monotonic(), {}
        if self._last is not None:
            then, before = self._last
            found = rates(before, counters, now - then)
            self._history.append((now, sum(rate.requests for rate in found.values())))
        self._last = now, counters
        return ServerView(
            server=f"{about.name} {about.version} at {self._url}",
            source=source,
            counters=counters,
            rates=found,
            history=tuple(self._history),
        )


def _metrics_page(url: str) -> dict[Key, Counters] | None:
    if not url:
        return None
    try:
        response = httpx.get(url, timeout=_SECONDS)
        response.raise_for_status()
        return read_metrics_page(response.text)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
