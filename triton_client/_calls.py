"""Every call but inference as a value: where it goes, its bytes, and how its answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from triton_client._failures import Failure, classify
from triton_client._hooks import CallInfo
from triton_client.errors import InvalidInput, ServerError, TritonClientError
from triton_client.types import RepositoryEntry, ServerMetadata, SharedMemoryRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_client._regions import Segment

__all__ = ["INFER", "STREAM", "Call", "Calls"]

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
        parse: Reads the serialized answer.
        server: The address it goes to, for errors.
        model: The model it concerns, or empty.
        version: The version it concerns, or empty.
        segments: The shared memory that it refers to.
    """

    method: str
    request: bytes
    parse: Callable[[bytes], T]
    server: str
    model: str = ""
    version: str = ""
    segments: tuple[Segment, ...] = ()

    def info(self) -> CallInfo:
        """Return what hooks are told of it."""
        method = self.method.rpartition("/")[2]
        return CallInfo(method, self.model, self.version, self.server, len(self.request))

    def followed_by(self, fields: bytes) -> Call[T]:
        """Return the same call with more fields at the end of its request."""
        return self._replace(request=self.request + fields)

    def read(self, answer: bytes | None) -> T:
        """Return what an answer says.

        Raises:
            ServerError: It cannot be read.
            TritonClientError: It is an error.
        """
        try:
            if answer is None:  # gRPC's word for it
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


class Calls:
    """The calls that one server takes.

    Args:
        server: The address, for errors.
    """

    __slots__ = ("_server",)

    def __init__(self, server: str) -> None:
        self._server = server

    def live(self) -> Call[bool]:
        """Ask whether the server runs."""
        return self._call("ServerLive", lambda answer: bool(answer.live))

    def ready(self) -> Call[bool]:
        """Ask whether the server and its models are ready."""
        return self._call("ServerReady", lambda answer: bool(answer.ready))

    def metadata(self) -> Call[ServerMetadata]:
        """Ask for the server's name, version and extensions."""
        return self._call(
            "ServerMetadata",
            lambda answer: ServerMetadata(answer.name, answer.version, tuple(answer.extensions)),
        )

    def model_ready(self, name: str, version: str) -> Call[bool]:
        """Ask whether a model version can serve."""
        return self._call(
            "ModelReady",
            lambda answer: bool(answer.ready),
            model=name,
            version=version,
            fields={"name": name, "version": version},
        )

    def model_metadata(self, name: str, version: str) -> Call[Any]:
        """Ask for a model's ``ModelMetadataResponse``."""
        return self._call(
            "ModelMetadata",
            lambda answer: answer,
            model=name,
            version=version,
            fields={"name": name, "version": version},
        )

    def model_config(self, name: str, version: str) -> Call[Any]:
        """Ask for a model's ``ModelConfig``."""
        return self._call(
            "ModelConfig",
            lambda answer: answer.config,
            model=name,
            version=version,
            fields={"name": name, "version": version},
        )

    def statistics(self, name: str, version: str) -> Call[tuple[Any, ...]]:
        """Ask for the ``ModelStatistics`` of one model version, or of all."""
        return self._call(
            "ModelStatistics",
            lambda answer: tuple(answer.model_stats),
            model=name,
            version=version,
            fields={"name": name, "version": version},
        )

    def index(self, *, ready: bool) -> Call[tuple[RepositoryEntry, ...]]:
        """Ask for the repository index."""
        return self._call(
            "RepositoryIndex",
            lambda answer: tuple(
                RepositoryEntry(item.name, item.version, item.state, item.reason)
                for item in answer.models
            ),
            fields={"ready": ready},
        )

    def load(
        self, name: str, *, config: str | None, files: Mapping[str, bytes] | None
    ) -> Call[None]:
        """Ask the server to load a model.

        Raises:
            InvalidInput: There are files, but no config.
        """
        if files and config is None:
            raise InvalidInput(
                "a load with files needs a config too", server=self._server, model=name
            )
        request = service_pb2.RepositoryModelLoadRequest(model_name=name)
        if config is not None:
            request.parameters["config"].string_param = config
        for path, content in (files or {}).items():
            request.parameters[f"file:{path}"].bytes_param = content
        return Call(
            f"{_SERVICE}RepositoryModelLoad",
            request.SerializeToString(),
            _nothing,
            self._server,
            name,
        )

    def unload(self, name: str, *, dependents: bool) -> Call[None]:
        """Ask the server to unload a model."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=name)
        request.parameters["unload_dependents"].bool_param = dependents
        return Call(
            f"{_SERVICE}RepositoryModelUnload",
            request.SerializeToString(),
            _nothing,
            self._server,
            name,
        )

    def register(self, name: str, key: str, nbytes: int) -> Call[None]:
        """Ask the server to map system shared memory.

        Args:
            name: The name to refer to it by.
            key: Its POSIX name.
            nbytes: Its size in bytes.
        """
        return self._call(
            "SystemSharedMemoryRegister",
            _nothing,
            fields={"name": name, "key": key, "offset": 0, "byte_size": nbytes},
        )

    def unregister(self, name: str) -> Call[None]:
        """Ask the server to map system shared memory no more."""
        return self._call("SystemSharedMemoryUnregister", _nothing, fields={"name": name})

    def shared_memory(self) -> Call[tuple[SharedMemoryRegion, ...]]:
        """Ask for the system shared memory that is registered."""
        return self._call(
            "SystemSharedMemoryStatus",
            lambda answer: tuple(
                SharedMemoryRegion(item.name, item.key, item.offset, item.byte_size)
                for item in answer.regions.values()
            ),
        )

    def _call(
        self,
        method: str,
        read: Callable[[Any], T],
        *,
        model: str = "",
        version: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> Call[T]:
        request = getattr(service_pb2, f"{method}Request")(**(fields or {})).SerializeToString()
        from_bytes = getattr(service_pb2, f"{method}Response").FromString
        return Call(
            f"{_SERVICE}{method}",
            request,
            lambda answer: read(from_bytes(answer)),
            self._server,
            model,
            version,
        )


def _nothing(_answer: object) -> None:
    return None
