"""A thin client for Triton Inference Server: numpy in, numpy out, typed errors.

    from triton_client import TritonClient

    with TritonClient("localhost:8001") as client:
        model = client.model("income")
        forecast = model.infer({"history": x})["forecast"]

:class:`AsyncTritonClient` has the same names with ``await``. ``triton_client.types`` and
``triton_client.errors`` need numpy alone; gRPC is imported when a client is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_client._aio_client import AsyncTritonClient
    from triton_client._aio_model import AsyncModel
    from triton_client._aio_sequence import AsyncModelSequence
    from triton_client._aio_shared_memory import AsyncSharedMemory
    from triton_client._channel import TLS
    from triton_client._client import TritonClient
    from triton_client._hooks import CallInfo, Hooks
    from triton_client._model import Model
    from triton_client._sequence import ModelSequence
    from triton_client._shared_memory import SharedMemory
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
    "CallInfo",
    "DeadlineExceeded",
    "Hooks",
    "InvalidInput",
    "Model",
    "ModelNotFound",
    "ModelSequence",
    "ModelSpec",
    "NotReady",
    "Overloaded",
    "PermissionDenied",
    "RepositoryEntry",
    "ServerError",
    "ServerMetadata",
    "SharedMemory",
    "SharedMemoryRegion",
    "TensorSpec",
    "TritonClient",
    "TritonClientError",
    "Unavailable",
]

_HOMES = {
    "TLS": "_channel",
    "AsyncModel": "_aio_model",
    "AsyncTritonClient": "_aio_client",
    "CallInfo": "_hooks",
    "Hooks": "_hooks",
    "AsyncModelSequence": "_aio_sequence",
    "AsyncSharedMemory": "_aio_shared_memory",
    "SharedMemory": "_shared_memory",
    "SharedMemoryRegion": "types",
    "Model": "_model",
    "ModelSequence": "_sequence",
    "TritonClient": "_client",
    "ModelSpec": "types",
    "RepositoryEntry": "types",
    "ServerMetadata": "types",
    "TensorSpec": "types",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
