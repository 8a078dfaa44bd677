"""What Triton counts, as rates: parsed from its Prometheus page, or from its statistics by gRPC.

Triton's counters are sums since the server started (``docs/user_guide/metrics.md`` of
triton-inference-server/server): requests, rows ("inferences"), executions, and microseconds spent.
A rate is the difference of two readings. Percentiles are there only where the server was started
with ``--metrics-config summary_latencies=true``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triton_client import ModelStatistics

__all__ = ["Counters", "Key", "Rates", "Reading", "counters_of_page", "counters_of_statistics",
           "rates", "total"]  # fmt: skip

Key = tuple[str, str]
"""A model and its version."""

_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_MICRO, _NANO = 1e-6, 1e-9


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server has counted of one version since it was started.

    Attributes:
        requests: Requests that were answered.
        failures: Requests that failed.
        rows: Rows that were computed.
        executions: How often the model ran, which is seldom where requests are batched.
        total: Seconds of all answered requests, from their arrival to their answer.
        queue: Seconds of them spent waiting.
        compute: Seconds of them spent in the model and its inputs and outputs.
        waiting: Requests that wait now; None where the server does not say.
        quantiles: Seconds below which a part of the latest requests were answered, by that part.
    """

    requests: float = 0.0
    failures: float = 0.0
    rows: float = 0.0
    executions: float = 0.0
    total: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    waiting: float | None = None
    quantiles: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of all versions at one moment.

    Attributes:
        at: Seconds on a monotonic clock.
        models: By model and version.
    """

    at: float
    models: Mapping[Key, Counters]


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two readings; times in seconds, None where nothing was answered."""

    requests: float
    failures: float
    latency: float | None
    queue: float | None
    compute: float | None
    batch: float | None
    waiting: float | None
    quantiles: Mapping[float, float]


def counters_of_page(page: str) -> dict[Key, Counters]:
    """Read Triton's Prometheus page.

    Raises:
        ValueError: It is no such page.
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
    return {key: _of_page(found, quantiles[key]) for key, found in sums.items()}


def _of_page(found: Mapping[str, float], quantiles: Mapping[float, float]) -> Counters:
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
        waiting=found.get("nv_inference_pending_request_count"),
        quantiles={part: value for part, value in sorted(quantiles.items()) if not isnan(value)},
    )


def counters_of_statistics(statistics: Iterable[ModelStatistics]) -> dict[Key, Counters]:
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


def rates(before: Reading, now: Reading) -> dict[Key, Rates]:
    """Return what happened between two readings, by model and version.

    A counter that went back is that of a server that was started anew: it counts from zero. The
    first reading of a version says nothing yet of its rates.
    """
    seconds = now.at - before.at
    if seconds <= 0:
        return {}
    return {
        key: _rates(before.models.get(key, counters), counters, seconds)
        for key, counters in now.models.items()
    }


def _rates(before: Counters, now: Counters, seconds: float) -> Rates:
    if now.requests < before.requests or now.failures < before.failures:
        before = Counters()
    answered = now.requests - before.requests
    executions = now.executions - before.executions

    def each(spent: float, count: float) -> float | None:
        return spent / count if count > 0 else None

    return Rates(
        requests=answered / seconds,
        failures=(now.failures - before.failures) / seconds,
        latency=each(now.total - before.total, answered),
        queue=each(now.queue - before.queue, answered),
        compute=each(now.compute - before.compute, answered),
        batch=each(now.rows - before.rows, executions),
        waiting=now.waiting,
        quantiles=now.quantiles,
    )


def total(found: Mapping[Key, Rates]) -> float:
    """Return the requests a second of all versions together."""
    return sum(entry.requests for entry in found.values())
