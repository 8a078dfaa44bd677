"""What the server does now: requests a second, latency, queue, batches, by model and version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from stlab_dashboard.charts import Line, chart
from stlab_dashboard.elements import cell, element, row, state, table, text
from stlab_dashboard.layout import frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stlab_dashboard.metrics import Counters, Key, Rates
    from stlab_dashboard.monitor import Monitor, View
    from stlab_dashboard.settings import Settings

__all__ = ["server_page"]


async def server_page(settings: Settings, monitor: Monitor) -> None:
    """Show the page, which refreshes itself."""
    with frame(settings, "Server", "/server"):
        standing = element("div", "standing", role="status")
        shown = element("div")
        text(
            "p",
            f"Refreshes itself every {settings.refresh_seconds:g} s. Rates and times are those of "
            "the requests since the refresh before; a dash where there were none.",
            "quiet",
        )
    said = ""

    async def look() -> None:
        nonlocal said
        view = await monitor.view()
        words = view.away or view.server
        if words != said:
            said = words
            standing.clear()
            with standing:
                _draw_standing(view)
        shown.clear()
        with shown:
            if not view.away:
                _draw_view(view)

    await look()
    ui.timer(settings.refresh_seconds, look, immediate=False)


def _draw_standing(view: View) -> None:
    if view.away:
        with element("div", "notice bad"):
            text("p", "✗ The server is away", "strong")
            text("p", f"{view.away[:1].upper()}{view.away[1:]}.")
            text("p", "This page goes on looking. Start it with: stlab serve")
    else:
        state("good", f"The server answers: {view.server}")
        text("p", f"The figures are from {view.source}.", "quiet")


def _draw_view(view: View) -> None:
    counters = dict(sorted((view.counters or {}).items()))
    rates = view.rates or {}
    if not counters:
        text("p", "No model is loaded.")
        return
    parts = sorted({part for rate in rates.values() for part in rate.quantiles})
    columns = [
        "Model", "Requests/s", "Failed/s", "Mean latency", *(f"p{100 * p:g}" for p in parts),
        "Queue", "Model time", "Average batch", "Waiting", "Answered so far",
    ]  # fmt: skip
    with table("What the server does now", columns):
        for key, counted in counters.items():
            with row():
                values = _values(key, rates.get(key), counted, parts)
                for place, (header, content) in enumerate(zip(columns, values, strict=True)):
                    cell(header, content, "number" if place else "", first=place == 0)
    text("h2", "Requests a second")
    _draw_history(view.history)


def _values(key: Key, rate: Rates | None, counted: Counters, parts: list[float]) -> Iterator[str]:
    yield f"{key[0]} {key[1]}"
    if rate is None:
        yield from ["—"] * (7 + len(parts))
    else:
        yield f"{rate.requests:.1f}"
        yield f"{rate.failures:.1f}"
        yield _milliseconds(rate.latency)
        for part in parts:
            yield _milliseconds(rate.quantiles.get(part))
        yield _milliseconds(rate.queue)
        yield _milliseconds(rate.compute)
        yield "—" if rate.batch is None else f"{rate.batch:.2f}"
        yield "—" if rate.waiting is None else f"{rate.waiting:.0f}"
    yield f"{counted.requests:,.0f}"


def _milliseconds(seconds: Any) -> str:
    return "—" if seconds is None else f"{1000 * seconds:.3g} ms"


def _draw_history(history: tuple[tuple[float, float], ...]) -> None:
    if len(history) < 2:
        text("p", "The line begins with the next refresh.", "quiet")
        return
    last, rate = history[-1]
    points = [(at - last, value) for at, value in history]
    most = max(value for _, value in history)
    words = f"over the last {-points[0][0]:.0f} seconds: {rate:.1f} now, {most:.1f} at most"
    label = f"Requests a second {words}"
    with element("figure", "wide"):
        text("figcaption", words.capitalize())
        ui.html(
            chart(
                [Line("rate", points)],
                label,
                x_text=lambda seconds: f"{seconds:.0f} s" if round(seconds) else "now",
                y_text=lambda value: f"{value:g}",
                from_zero=True,
                width=400,
            ),
            sanitize=False,
        )
