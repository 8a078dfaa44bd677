"""Rates from Triton's counters: of its Prometheus page, or of its statistics by gRPC.

Triton's counters are sums since the server started (``docs/user_guide/metrics.md`` of
triton-inference-server/server): requests, rows ("inferences"), executions, and microseconds spent.
A rate is the difference of two readings. Percentiles are present if the server was started with
``--metrics-config summary_latencies=true``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan

from prometheus_client.parser import text_string_to_metric_families

from triton_client import ModelStatistics

__all__ = ["Counters", "Key", "Rates", "rates", "read_metrics_page", "read_statistics"]

Key = tuple[str, str]
"""A model and its version."""

_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_MICRO, _NANO = 1e-6, 1e-9


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server has counted for one version since it started.

    Attributes:
        requests: Requests that were answered.
        failures: Requests that failed.
        rows: Rows that were computed.
        executions: How often the model ran; less than requests where these are batched.
        total: Seconds of all answered requests, from their arrival to their answer.
        queue: Seconds of them spent in the queue.
        compute: Seconds of them spent in the model and its inputs and outputs.
        pending: Requests in the queue now; None where the server does not report it.
        quantiles: Latency in seconds by quantile.
    """

    requests: float = 0.0
    failures: float = 0.0
    rows: float = 0.0
    executions: float = 0.0
    total: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    pending: float | None = None
    quantiles: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates between two readings; times in seconds, None without any response."""

    requests: float
    failures: float
    latency: float | None
    queue: float | None
    compute: float | None
    batch: float | None


def read_metrics_page(page: str) -> dict[Key, Counters]:
    """Read Triton's Prometheus page.

    Raises:
        ValueError: The page cannot be parsed.
    """
    sums: dict[Key, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    quantiles: dict[Key, dict[float, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if "model" not in labels or not sample.name.startswith("nv_"):
                continue
            key = labels["model"], labels.get("version", "")
            if "quantile" not in labels:
                # Failures have a line for each reason.
                sums[key][sample.name.removesuffix("_total")] += sample.value
            elif sample.name == "nv_inference_request_summary_us" and sample.value >= 0:
                quantiles[key][float(labels["quantile"])] = sample.value * _MICRO
    return {key: _counters(found, quantiles[key]) for key, found in sums.items()}


def _counters(found: Mapping[str, float], quantiles: Mapping[float, float]) -> Counters:
    def seconds(what: str) -> float:
        return found.get(f"nv_inference_{what}_duration_us", 0.0) * _MICRO

    return Counters(
        requests=found.get("nv_inference_request_success", 0.0),
        failures=found.get("nv_inference_request_failure", 0.0),
        rows=found.get("nv_inference_count", 0.0),
        executions=found.get("nv_inference_exec_count", 0.0),
        total=seconds("request"),
        queue=seconds("queue"),
        compute=sum(map(seconds, _COMPUTE)),
        pending=found.get("nv_inference_pending_request_count"),
        quantiles={part: value for part, value in sorted(quantiles.items()) if not isnan(value)},
    )


def read_statistics(statistics: Iterable[ModelStatistics]) -> dict[Key, Counters]:
    """Read the ``ModelStatistics`` that `triton_client` returns."""
    counters = {}
    for entry in statistics:
        spent = entry.inference_stats
        counters[entry.name, entry.version] = Counters(
            requests=float(spent.success.count),
            failures=float(spent.fail.count),
            rows=float(entry.inference_count),
            executions=float(entry.execution_count),
            total=spent.success.ns * _NANO,
            queue=spent.queue.ns * _NANO,
            compute=sum(getattr(spent, name).ns for name in _COMPUTE) * _NANO,
        )
    return counters


def rates(
    before: Mapping[Key, Counters], now: Mapping[Key, Counters], seconds: float
) -> dict[Key, Rates]:
    """Return the rates between two readings, by model and version.

    A counter that went back means that the server was restarted and counts from zero. The first
    reading of a version gives no rates yet.
    """
    if seconds <= 0:
        return {}
    return {
        key: _rates(before.get(key, counters), counters, seconds) for key, counters in now.items()
    }


def _rates(before: Counters, now: Counters, seconds: float) -> Rates:
    if now.requests < before.requests or now.failures < before.failures:
        before = Counters()
    requests = now.requests - before.requests
    executions = now.executions - before.executions

    def mean(total: float, count: float) -> float | None:
        return total / count if count > 0 else None

    return Rates(
        requests=requests / seconds,
        failures=(now.failures - before.failures) / seconds,
        latency=mean(now.total - before.total, requests),
        queue=mean(now.queue - before.queue, requests),
        compute=mean(now.compute - before.compute, requests),
        batch=mean(now.rows - before.rows, executions),
    )
