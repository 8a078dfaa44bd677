"""Every call as a value: its gRPC method, the request's bytes, and how the response is read.

The functions build all requests but those of inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from triton_client._failures import Failure, classify
from triton_client._headers import Metadata
from triton_client._hooks import CallInfo
from triton_client._shared_memory import ShmRegion
from triton_client._statistics import ModelStatistics, model_statistics
from triton_client.errors import InvalidInput, ServerError, TritonClientError
from triton_client.types import RepositoryEntry, ServerMetadata, SharedMemoryRegion

__all__ = [
    "INFER", "STREAM", "Call", "index", "live", "load", "log_settings", "metadata", "model_config",
    "model_metadata", "model_ready", "ready", "register", "shared_memory", "statistics",
    "trace_settings", "unload", "unregister",
]  # fmt: skip

T = TypeVar("T")

_SERVICE: Final = "/inference.GRPCInferenceService/"
INFER: Final = f"{_SERVICE}ModelInfer"
STREAM: Final = f"{_SERVICE}ModelStreamInfer"


class Call(NamedTuple, Generic[T]):
    """One call with one request, before anything is sent.

    A named tuple, since one is made for every call: a frozen dataclass takes several times as long.

    Attributes:
        method: The gRPC method's path.
        request: The serialized request.
        parse: Reads the serialized response.
        server: The address it goes to, for errors.
        model: The model it concerns, or empty.
        version: The version it concerns, or empty.
        regions: The shared memory that it refers to.
        headers: The headers of this call alone.
    """

    method: str
    request: bytes
    parse: Callable[[bytes], T]
    server: str
    model: str = ""
    version: str = ""
    regions: tuple[ShmRegion, ...] = ()
    headers: Metadata = ()

    def info(self) -> CallInfo:
        """Return what event hooks receive."""
        method = self.method.rpartition("/")[2]
        return CallInfo(method, self.model, self.version, self.server, len(self.request))

    def followed_by(self, fields: bytes) -> Call[T]:
        """Return the same call with more fields at the end of its request."""
        return self._replace(request=self.request + fields)

    def read(self, answer: bytes | None) -> T:
        """Return what a response says.

        Raises:
            ServerError: It cannot be read.
            TritonClientError: It is an error.
        """
        try:
            if answer is None:  # how gRPC reports it
                raise ValueError("the server's answer is not one whole message")  # noqa: TRY301
            return self.parse(answer)
        except TritonClientError:
            raise
        except (ValueError, OverflowError, ImportError, DecodeError) as error:
            raise ServerError(
                str(error), server=self.server, model=self.model, version=self.version
            ) from error

    def failure(self, code: str, details: str) -> Failure:
        """Return what a gRPC status means for this call."""
        return classify(code, details, server=self.server, model=self.model, version=self.version)

    def failed(self, error: Any) -> Failure:
        """Return what a ``grpc.RpcError`` means for this call."""
        return self.failure(error.code().name, error.details() or "")

    def http_port(self) -> TritonClientError:
        """Return the error of an address that takes HTTP, but no gRPC."""
        return self.failure(
            "UNAVAILABLE",
            "HTTP/1 answers there, not gRPC: this looks like Triton's HTTP port; "
            "name its gRPC port, 8001 by default",
        ).error

    def overdue(self) -> TritonClientError:
        """Return the error of a call whose deadline passed before it was sent.

        gRPC rounds deadlines to milliseconds, in which a server nearby may well have answered.
        """
        return self.failure(
            "DEADLINE_EXCEEDED", "the deadline passed before the request was sent"
        ).error


def live(server: str) -> Call[bool]:
    """Check whether the server runs."""
    return _call(server, "ServerLive", lambda answer: bool(answer.live))


def ready(server: str) -> Call[bool]:
    """Check whether the server and its models are ready."""
    return _call(server, "ServerReady", lambda answer: bool(answer.ready))


def metadata(server: str) -> Call[ServerMetadata]:
    """Get the server's name, version and extensions."""
    return _call(
        server,
        "ServerMetadata",
        lambda answer: ServerMetadata(answer.name, answer.version, tuple(answer.extensions)),
    )


def model_ready(server: str, name: str, version: str) -> Call[bool]:
    """Check whether a model version can serve."""
    return _model_call(server, "ModelReady", name, version, lambda answer: bool(answer.ready))


def model_metadata(server: str, name: str, version: str) -> Call[Any]:
    """Get a model's ``ModelMetadataResponse``."""
    return _model_call(server, "ModelMetadata", name, version, lambda answer: answer)


def model_config(server: str, name: str, version: str) -> Call[Any]:
    """Get a model's ``ModelConfig`` message."""
    return _model_call(server, "ModelConfig", name, version, lambda answer: answer.config)


def statistics(server: str, name: str, version: str) -> Call[tuple[ModelStatistics, ...]]:
    """Get the statistics of one model version, or of all."""
    return _model_call(
        server,
        "ModelStatistics",
        name,
        version,
        lambda answer: tuple(map(model_statistics, answer.model_stats)),
    )


def trace_settings(
    server: str, model: str, settings: Mapping[str, Any]
) -> Call[dict[str, tuple[str, ...]]]:
    """Change trace settings, or none, and get all of them.

    Args:
        server: The server's address, for errors.
        model: The model whose settings they are; empty for the server's own.
        settings: The new values, each one or several; ``None`` removes what was set.
    """
    request = service_pb2.TraceSettingRequest(model_name=model)
    for name, value in settings.items():
        values: Sequence[Any] = value if isinstance(value, list | tuple) else (value,)
        request.settings[name].value.extend(str(item) for item in values if item is not None)
    return _call(
        server,
        "TraceSetting",
        lambda answer: {name: tuple(item.value) for name, item in answer.settings.items()},
        request,
        model=model,
    )


def log_settings(
    server: str, settings: Mapping[str, bool | int | str]
) -> Call[dict[str, bool | int | str]]:
    """Change log settings, or none, and get all of them.

    Raises:
        InvalidInput: A value is neither a boolean, a number nor text.
    """
    request = service_pb2.LogSettingsRequest()
    for name, value in settings.items():
        kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        try:
            setattr(request.settings[name], kinds[type(value)], value)
        except (KeyError, ValueError) as error:
            raise InvalidInput(
                f"the log setting {name!r} cannot be {value!r}", server=server
            ) from error
    return _call(
        server,
        "LogSettings",
        lambda answer: {
            name: getattr(item, item.WhichOneof("parameter_choice") or "string_param")
            for name, item in answer.settings.items()
        },
        request,
    )


def index(server: str, *, ready: bool) -> Call[tuple[RepositoryEntry, ...]]:
    """Get the repository index."""
    return _call(
        server,
        "RepositoryIndex",
        lambda answer: tuple(
            RepositoryEntry(item.name, item.version, item.state, item.reason)
            for item in answer.models
        ),
        service_pb2.RepositoryIndexRequest(ready=ready),
    )


def load(
    server: str, name: str, *, config: str | None, files: Mapping[str, bytes] | None
) -> Call[None]:
    """Load a model.

    Raises:
        InvalidInput: There are files, but no config.
    """
    if files and config is None:
        raise InvalidInput("a load with files needs a config too", server=server, model=name)
    request = service_pb2.RepositoryModelLoadRequest(model_name=name)
    if config is not None:
        request.parameters["config"].string_param = config
    for path, content in (files or {}).items():
        request.parameters[f"file:{path}"].bytes_param = content
    return _call(server, "RepositoryModelLoad", _nothing, request, model=name)


def unload(server: str, name: str, *, dependents: bool) -> Call[None]:
    """Unload a model."""
    request = service_pb2.RepositoryModelUnloadRequest(model_name=name)
    request.parameters["unload_dependents"].bool_param = dependents
    return _call(server, "RepositoryModelUnload", _nothing, request, model=name)


def register(server: str, name: str, key: str, nbytes: int) -> Call[None]:
    """Map system shared memory.

    Args:
        server: The server's address, for errors.
        name: The name to refer to it by.
        key: Its POSIX name.
        nbytes: Its size in bytes.
    """
    request = service_pb2.SystemSharedMemoryRegisterRequest(
        name=name, key=key, offset=0, byte_size=nbytes
    )
    return _call(server, "SystemSharedMemoryRegister", _nothing, request)


def unregister(server: str, name: str) -> Call[None]:
    """Unmap system shared memory."""
    request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
    return _call(server, "SystemSharedMemoryUnregister", _nothing, request)


def shared_memory(server: str) -> Call[tuple[SharedMemoryRegion, ...]]:
    """Get the system shared memory that is registered."""
    return _call(
        server,
        "SystemSharedMemoryStatus",
        lambda answer: tuple(
            SharedMemoryRegion(item.name, item.key, item.offset, item.byte_size)
            for item in answer.regions.values()
        ),
    )


def _call(
    server: str,
    method: str,
    read: Callable[[Any], T],
    request: Any = None,
    *,
    model: str = "",
    version: str = "",
) -> Call[T]:
    from_bytes = getattr(service_pb2, f"{method}Response").FromString
    message = b"" if request is None else request.SerializeToString()
    return Call(
        f"{_SERVICE}{method}",
        message,
        lambda answer: read(from_bytes(answer)),
        server,
        model,
        version,
    )


def _model_call(
    server: str, method: str, name: str, version: str, read: Callable[[Any], T]
) -> Call[T]:
    request = getattr(service_pb2, f"{method}Request")(name=name, version=version)
    return _call(server, method, read, request, model=name, version=version)


def _nothing(_answer: object) -> None:
    return None
