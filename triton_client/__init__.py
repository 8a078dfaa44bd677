"""A thin client for Triton Inference Server: numpy in, numpy out, typed errors.

    from triton_client import TritonClient

    with TritonClient("localhost:8001") as client:
        model = client.model("income")
        forecast = model.infer({"history": x})["forecast"]

:class:`AsyncTritonClient` has the same names with ``await``. ``triton_client.types`` and
``triton_client.errors`` need numpy alone; gRPC is imported when a client is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_client._async.client import AsyncTritonClient
    from triton_client._async.model import AsyncModel
    from triton_client._async.sequence import AsyncModelSequence
    from triton_client._async.shared_memory import AsyncSharedMemory
    from triton_client._channel import TLS
    from triton_client._config import ConfigTensor, DynamicBatching, InstanceGroup, ModelConfig
    from triton_client._hooks import CallInfo, Hooks
    from triton_client._result import Result
    from triton_client._statistics import (
        BatchStatistics,
        Duration,
        InferStatistics,
        ModelStatistics,
    )
    from triton_client._sync.client import TritonClient
    from triton_client._sync.model import Model
    from triton_client._sync.sequence import ModelSequence
    from triton_client._sync.shared_memory import SharedMemory
    from triton_client.errors import (
        DeadlineExceeded,
        InvalidInput,
        ModelNotFound,
        NotReady,
        Overloaded,
        PermissionDenied,
        ServerError,
        TritonClientError,
        Unavailable,
    )
    from triton_client.types import (
        ModelSpec,
        RepositoryEntry,
        ServerMetadata,
        SharedMemoryRegion,
        TensorSpec,
    )

__all__ = [
    "TLS",
    "AsyncModel",
    "AsyncModelSequence",
    "AsyncSharedMemory",
    "AsyncTritonClient",
    "BatchStatistics",
    "CallInfo",
    "ConfigTensor",
    "DeadlineExceeded",
    "Duration",
    "DynamicBatching",
    "Hooks",
    "InferStatistics",
    "InstanceGroup",
    "InvalidInput",
    "Model",
    "ModelConfig",
    "ModelNotFound",
    "ModelSequence",
    "ModelSpec",
    "ModelStatistics",
    "NotReady",
    "Overloaded",
    "PermissionDenied",
    "RepositoryEntry",
    "Result",
    "ServerError",
    "ServerMetadata",
    "SharedMemory",
    "SharedMemoryRegion",
    "TensorSpec",
    "TritonClient",
    "TritonClientError",
    "Unavailable",
]

_MODULES = {
    "TLS": "_channel",
    "ConfigTensor": "_config",
    "DynamicBatching": "_config",
    "InstanceGroup": "_config",
    "ModelConfig": "_config",
    "CallInfo": "_hooks",
    "Hooks": "_hooks",
    "Result": "_result",
    "BatchStatistics": "_statistics",
    "Duration": "_statistics",
    "InferStatistics": "_statistics",
    "ModelStatistics": "_statistics",
    "AsyncTritonClient": "_async.client",
    "AsyncModel": "_async.model",
    "AsyncModelSequence": "_async.sequence",
    "AsyncSharedMemory": "_async.shared_memory",
    "TritonClient": "_sync.client",
    "Model": "_sync.model",
    "ModelSequence": "_sync.sequence",
    "SharedMemory": "_sync.shared_memory",
}
_TYPES = frozenset(
    {"ModelSpec", "RepositoryEntry", "ServerMetadata", "SharedMemoryRegion", "TensorSpec"}
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "types" if name in _TYPES else "errors")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
