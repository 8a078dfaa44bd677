"""Every call as a value: its gRPC method, the request's bytes, and how the response is read.

The functions build all requests but those of inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from triton_client._failures import Failure, Place, classify
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
        place: What it goes to, for errors.
        regions: The shared memory that it refers to.
        headers: The headers of this call alone.
    """

    method: str
    request: bytes
    parse: Callable[[bytes], T]
    place: Place
    regions: tuple[ShmRegion, ...] = ()
    headers: Metadata = ()

    def info(self) -> CallInfo:
        """Return what event hooks receive."""
        server, model, version = self.place
        method = self.method.rpartition("/")[2]
        return CallInfo(method, model, version, server, len(self.request))

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
            raise self.place.error(ServerError, str(error)) from error

    def failure(self, code: str, details: str) -> Failure:
        """Return what a gRPC status means for this call."""
        return classify(code, details, self.place)

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


def live(server: str) -> Call[bool]:
    """Check whether the server runs."""
    return _call(Place(server), "ServerLive", lambda answer: bool(answer.live))


def ready(server: str) -> Call[bool]:
    """Check whether the server and its models are ready."""
    return _call(Place(server), "ServerReady", lambda answer: bool(answer.ready))


def metadata(server: str) -> Call[ServerMetadata]:
    """Get the server's name, version and extensions."""
    return _call(
        Place(server),
        "ServerMetadata",
        lambda answer: ServerMetadata(answer.name, answer.version, tuple(answer.extensions)),
    )


def model_ready(place: Place) -> Call[bool]:
    """Check whether a model version can serve."""
    return _model_call(place, "ModelReady", lambda answer: bool(answer.ready))


def model_metadata(place: Place) -> Call[Any]:
    """Get a model's ``ModelMetadataResponse``."""
    return _model_call(place, "ModelMetadata", lambda answer: answer)


def model_config(place: Place) -> Call[Any]:
    """Get a model's ``ModelConfig`` message."""
    return _model_call(place, "ModelConfig", lambda answer: answer.config)


def statistics(place: Place) -> Call[tuple[ModelStatistics, ...]]:
    """Get the statistics of one model version, or of all."""
    return _model_call(
        place,
        "ModelStatistics",
        lambda answer: tuple(map(model_statistics, answer.model_stats)),
    )


def trace_settings(place: Place, settings: Mapping[str, Any]) -> Call[dict[str, tuple[str, ...]]]:
    """Change the trace settings of a model or the server, or none, and get all of them.

    Each new value is one or several; ``None`` removes what was set.
    """
    request = service_pb2.TraceSettingRequest(model_name=place.model)
    for name, value in settings.items():
        values: Sequence[Any] = value if isinstance(value, list | tuple) else (value,)
        request.settings[name].value.extend(str(item) for item in values if item is not None)
    return _call(
        place,
        "TraceSetting",
        lambda answer: {name: tuple(item.value) for name, item in answer.settings.items()},
        request,
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
            problem = f"the log setting {name!r} cannot be {value!r}"
            raise Place(server).error(InvalidInput, problem) from error
    return _call(
        Place(server),
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
        Place(server),
        "RepositoryIndex",
        lambda answer: tuple(
            RepositoryEntry(item.name, item.version, item.state, item.reason)
            for item in answer.models
        ),
        service_pb2.RepositoryIndexRequest(ready=ready),
    )


def load(place: Place, config: str | None, files: Mapping[str, bytes] | None) -> Call[None]:
    """Load a model.

    Raises:
        InvalidInput: There are files, but no config.
    """
    if files and config is None:
        raise place.error(InvalidInput, "a load with files needs a config too")
    request = service_pb2.RepositoryModelLoadRequest(model_name=place.model)
    if config is not None:
        request.parameters["config"].string_param = config
    for path, content in (files or {}).items():
        request.parameters[f"file:{path}"].bytes_param = content
    return _call(place, "RepositoryModelLoad", lambda _: None, request)


def unload(place: Place, *, dependents: bool) -> Call[None]:
    """Unload a model."""
    request = service_pb2.RepositoryModelUnloadRequest(model_name=place.model)
    request.parameters["unload_dependents"].bool_param = dependents
    return _call(place, "RepositoryModelUnload", lambda _: None, request)


def register(server: str, name: str, nbytes: int) -> Call[None]:
    """Map the system shared memory whose POSIX name is a slash and the name."""
    request = service_pb2.SystemSharedMemoryRegisterRequest(
        name=name, key=f"/{name}", offset=0, byte_size=nbytes
    )
    return _call(Place(server), "SystemSharedMemoryRegister", lambda _: None, request)


def unregister(server: str, name: str) -> Call[None]:
    """Unmap system shared memory."""
    request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
    return _call(Place(server), "SystemSharedMemoryUnregister", lambda _: None, request)


def shared_memory(server: str) -> Call[tuple[SharedMemoryRegion, ...]]:
    """Get the system shared memory that is registered."""
    return _call(
        Place(server),
        "SystemSharedMemoryStatus",
        lambda answer: tuple(
            SharedMemoryRegion(item.name, item.key, item.offset, item.byte_size)
            for item in answer.regions.values()
        ),
    )


def _call(place: Place, method: str, read: Callable[[Any], T], request: Any = None) -> Call[T]:
    from_bytes = getattr(service_pb2, f"{method}Response").FromString
    message = b"" if request is None else request.SerializeToString()
    return Call(f"{_SERVICE}{method}", message, lambda answer: read(from_bytes(answer)), place)


def _model_call(place: Place, method: str, read: Callable[[Any], T]) -> Call[T]:
    request = getattr(service_pb2, f"{method}Request")(name=place.model, version=place.version)
    return _call(place, method, read, request)
