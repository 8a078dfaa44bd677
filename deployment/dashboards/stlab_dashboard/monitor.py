"""Reads a server's counters now and then, for however many look on."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from exporter.commands.infer.command import first_address
from exporter.errors import StlabError
from exporter.triton.connection import connect
from stlab_dashboard.kept import Kept
from stlab_dashboard.metrics import Reading, counters_of_page, counters_of_statistics, rates, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stlab_dashboard.metrics import Counters, Key, Rates
    from stlab_dashboard.settings import Settings

__all__ = ["Monitor", "View"]

_SECONDS = 3.0
_HISTORY = 90


@dataclass(frozen=True, slots=True)
class View:
    """What is known of the server now.

    Attributes:
        server: Its name and version; empty where it is away.
        away: Why it is away, in a sentence; empty where it is not.
        source: Where the counters come from.
        counters: Everything counted since the server started.
        rates: What happened since the reading before; empty after the first one.
        history: Requests a second of all versions, the latest last, as (monotonic s, rate).
    """

    server: str = ""
    away: str = ""
    source: str = ""
    counters: Mapping[Key, Counters] | None = None
    rates: Mapping[Key, Rates] | None = None
    history: tuple[tuple[float, float], ...] = ()


class Monitor:
    """Reads one server.

    Args:
        settings: Where it is, and how often it is read at most.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = first_address(settings.triton_url)
        self._page = settings.triton_metrics_url
        self._views: Kept[View] = Kept(settings.refresh_seconds * 0.9)
        self._last: Reading | None = None
        self._history: deque[tuple[float, float]] = deque(maxlen=_HISTORY)

    async def view(self) -> View:
        """Return what is known now; a server that does not answer is said to be away."""
        return await self._views.get("view", self._look)

    def _look(self) -> View:
        try:
            with connect(self._url, option="STLAB_TRITON_URL", timeout=_SECONDS) as client:
                about = client.metadata()
                page = _page_of(self._page)
                if page is None:
                    source = "its statistics by gRPC, since its metrics page does not answer"
                    found = counters_of_statistics(client.statistics())
                else:
                    source, found = "its metrics page", page
        except StlabError as error:
            self._last = None
            return View(away=error.message, history=self._so_far())
        now = Reading(time.monotonic(), found)
        happened = {} if self._last is None else rates(self._last, now)
        if self._last is not None:
            self._history.append((now.at, total(happened)))
        self._last = now
        return View(
            f"{about.name} {about.version} at {self._url}", "", source, found, happened,
            self._so_far(),
        )  # fmt: skip

    def _so_far(self) -> tuple[tuple[float, float], ...]:
        return tuple(self._history)


def _page_of(url: str) -> dict[Key, Counters] | None:
    if not url:
        return None
    try:
        answer = httpx.get(url, timeout=_SECONDS)
        answer.raise_for_status()
        return counters_of_page(answer.text)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
