"""Prometheus metrics, labelled by route template and model version, never by a caller's input."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one service, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self._requests = counter(
            "stlab_api_requests",
            "Requests that were answered.",
            ("method", "route", "status", "model", "version"),
        )
        self._seconds = histogram(
            "stlab_api_request_seconds",
            "Seconds from the first byte to the last.",
            ("route", "model", "version"),
            buckets=_SECONDS,
        )
        self.in_flight = gauge("stlab_api_requests_in_flight", "Requests under way.")
        self.refused = counter(
            "stlab_api_requests_refused", "Requests refused because too many were under way."
        )
        self.ready = gauge("stlab_api_ready", "1 if /health/ready would answer 200 at this moment.")
        self._rows = histogram(
            "stlab_api_batch_rows",
            "Rows in one run of a model in this process.",
            ("model",),
            buckets=_ROWS,
        )
        self._served = gauge(
            "stlab_api_model_info", "1 for the version that answers.", ("model", "alias", "version")
        )
        self._known: dict[tuple[str, ...], tuple[Counter, Histogram]] = {}

    def answered(
        self, method: str, route: str, status: int, model: str, version: str, seconds: float
    ) -> None:
        """Count a request."""
        key = (method, route, str(status), model, version)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (
                self._requests.labels(*key),
                self._seconds.labels(route, model, version),
            )
        found[0].inc()
        found[1].observe(seconds)

    def ran(self, model: str, rows: int) -> None:
        """Count the rows of a run."""
        self._rows.labels(model).observe(rows)

    def serves(self, model: str, alias: str, version: int, before: int | None) -> None:
        """Show which version of a model answers."""
        if before is not None and before != version:
            self._served.remove(model, alias, str(before))
        self._served.labels(model, alias, str(version)).set(1)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
