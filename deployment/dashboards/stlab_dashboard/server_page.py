"""The page *Server*: request rate, latency, queue and batches by model and version."""

from __future__ import annotations

from nicegui import ui

from stlab_dashboard.charts import Line, chart
from stlab_dashboard.elements import cell, element, row, state, table, text
from stlab_dashboard.metrics import Counters, Key, Rates
from stlab_dashboard.monitor import Monitor, ServerView

__all__ = ["server_page"]


async def server_page(monitor: Monitor, refresh_seconds: float) -> None:
    """Draw the page, which refreshes itself."""
    status = element("div", "status", role="status")
    content = element("div")
    text(
        "p",
        f"Refreshes every {refresh_seconds:g} s. Rates and times are of the requests since the "
        "last refresh; a dash where there were none.",
        "quiet",
    )
    shown = ""

    async def update() -> None:
        nonlocal shown
        view = await monitor.view()
        # Drawn again only if it changes, for screen readers read it aloud each time.
        if shown != (shown := view.error or view.server):
            status.clear()
            with status:
                _draw_status(view)
        content.clear()
        with content:
            if not view.error:
                _draw_view(view)

    await update()
    ui.timer(refresh_seconds, update, immediate=False)


def _draw_status(view: ServerView) -> None:
    if view.error:
        with element("div", "notice bad"):
            text("p", "✗ The server does not answer", "strong")
            text("p", f"{view.error[:1].upper()}{view.error[1:]}.")
            text("p", "This page keeps trying. Start the server with: stlab serve")
    else:
        state("good", f"The server answers: {view.server}")
        text("p", f"The figures are from {view.source}.", "quiet")


def _draw_view(view: ServerView) -> None:
    counters = dict(sorted((view.counters or {}).items()))
    rates = view.rates or {}
    if not counters:
        text("p", "No model is loaded.")
        return
    # Percentiles share a column: one each is wider than a screen.
    columns = [
        "Model", "Requests/s", "Failed/s", "Mean latency", "Percentiles", "Queue", "Model time",
        "Average batch", "Pending", "Total requests",
    ]  # fmt: skip
    if not any(counted.quantiles for counted in counters.values()):
        columns.remove("Percentiles")
    with table("Models", columns):
        for key, counted in counters.items():
            with row():
                values = _values(key, rates.get(key), counted)
                for header in columns:
                    classes = "" if header in {"Model", "Percentiles"} else "number"
                    cell(header, values.get(header, "—"), classes, first=header == "Model")
    text("h2", "Requests per second")
    _draw_history(view.history)


def _values(key: Key, rate: Rates | None, counted: Counters) -> dict[str, str]:
    values = {"Model": f"{key[0]} {key[1]}", "Total requests": f"{counted.requests:,.0f}"}
    if rate is not None:
        values |= {
            "Requests/s": f"{rate.requests:.1f}",
            "Failed/s": f"{rate.failures:.1f}",
            "Mean latency": _milliseconds(rate.latency),
            "Queue": _milliseconds(rate.queue),
            "Model time": _milliseconds(rate.compute),
        }
        if counted.quantiles:
            pairs = (f"p{100 * q:g} {_milliseconds(s)}" for q, s in counted.quantiles.items())
            # A line ends between two of them, never inside one.
            values["Percentiles"] = ", ".join(
                pair.replace(" ", "\N{NO-BREAK SPACE}") for pair in pairs
            )
        if rate.batch is not None:
            values["Average batch"] = f"{rate.batch:.2f}"
        if counted.pending is not None:
            values["Pending"] = f"{counted.pending:.0f}"
    return values


def _milliseconds(seconds: float | None) -> str:
    return "—" if seconds is None else f"{1000 * seconds:.3g} ms"


def _draw_history(history: tuple[tuple[float, float], ...]) -> None:
    if len(history) < 2:
        text("p", "The chart starts with the next refresh.", "quiet")
        return
    last, rate = history[-1]
    points = [(at - last, value) for at, value in history]
    peak = max(value for _, value in history)
    words = f"over the last {-points[0][0]:.0f} seconds: {rate:.1f} now, {peak:.1f} at most"
    with element("figure", "wide"):
        text("figcaption", words.capitalize())
        ui.html(
            chart(
                [Line("series-1", points)],
                f"Requests per second {words}",
                x_text=lambda seconds: f"{seconds:.0f} s" if round(seconds) else "now",
                y_text=lambda value: f"{value:g}",
                from_zero=True,
                width=400,
            ),
            sanitize=False,
        )
