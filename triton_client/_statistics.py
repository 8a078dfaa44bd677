"""A model version's counters, typed, from ``service_pb2.ModelStatistics``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BatchStatistics", "Duration", "InferStatistics", "ModelStatistics", "model_statistics"]


@dataclass(frozen=True, slots=True)
class Duration:
    """How often something happened, and the nanoseconds it took in all."""

    count: int
    ns: int


@dataclass(frozen=True, slots=True)
class InferStatistics:
    """What the requests of a model version spent their time on."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """What the executions with one batch size spent their time on."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """The counters of one model version since the server loaded it.

    Attributes:
        name: The model's name.
        version: The version.
        last_inference: The time of the last one, in milliseconds since 1970; 0 for none.
        inference_count: The rows that were computed.
        execution_count: The executions; each one computes a batch.
        inference_stats: By the part of a request.
        batch_stats: By the size of a batch.
        raw: The whole ``tritonclient.grpc.service_pb2.ModelStatistics``.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: tuple[BatchStatistics, ...]
    raw: Any = field(repr=False)


def model_statistics(message: Any) -> ModelStatistics:
    """Return the statistics of one model version."""
    return ModelStatistics(
        name=message.name,
        version=message.version,
        last_inference=message.last_inference,
        inference_count=message.inference_count,
        execution_count=message.execution_count,
        inference_stats=InferStatistics(**_durations(message.inference_stats, InferStatistics)),
        batch_stats=tuple(
            BatchStatistics(item.batch_size, **_durations(item, BatchStatistics))
            for item in message.batch_stats
        ),
        raw=message,
    )


def _durations(message: Any, kind: type[Any]) -> dict[str, Duration]:
    names = [name for name in kind.__dataclass_fields__ if name != "batch_size"]
    found = {name: getattr(message, name) for name in names}
    return {name: Duration(item.count, item.ns) for name, item in found.items()}
