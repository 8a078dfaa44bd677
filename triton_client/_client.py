"""The client for threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from triton_client._calls import Calls
from triton_client._channel import TLS, channel_settings
from triton_client._deadline import Deadline
from triton_client._defaults import (
    MAX_RESPONSE_BYTES,
    POLL_SECONDS,
    PROBE_SECONDS,
    TIMEOUT_SECONDS,
)
from triton_client._green_threads import prepare_green_threads
from triton_client._model import Model
from triton_client._origin import Origin
from triton_client._regions import Regions
from triton_client._repository import Repository
from triton_client._shared_memory import SharedMemory
from triton_client._transport import Transport
from triton_client.errors import (
    DeadlineExceeded,
    NotReady,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from triton_client._channel import Compression
    from triton_client._headers import HeaderSource, Token
    from triton_client._hooks import Hooks
    from triton_client.types import ServerMetadata, SharedMemoryRegion

__all__ = ["TritonClient"]


class TritonClient:
    """A Triton Inference Server, over gRPC. Thread-safe; usable in a child process after a fork.

    The channel opens at the first call and keeps no thread of this package.

    Args:
        url: ``host:port``, ``grpc://host:port``, ``grpcs://host:port``, or a gRPC target such as
            ``unix:/run/triton.sock``. Every address of a name is used in turn.
        timeout: The default deadline of a call in seconds; ``None`` for none.
        headers: Sent with every call; or a function that returns them, asked before every attempt
            of a call. What it raises, the call raises.
        token: Sent as ``authorization: Bearer …``; or a function that returns it, asked likewise.
        restricted: The secrets of Triton's restricted protocols, by key: ``{"admin": secret}``
            sends ``triton-grpc-protocol-admin: secret``.
        tls: ``True`` for TLS with gRPC's own authorities, or :class:`TLS` certificates.
        credentials: ``grpc.ChannelCredentials`` in place of ``tls``.
        retries: The most retries of a call whose connection broke.
        compression: ``gzip`` or ``deflate`` for requests; rarely worth its time on a fast network.
        max_response_bytes: The largest answer that is taken, at most 2**31 - 1; a larger one is a
            ``ServerError``.
        interceptors: Those of ``grpc``, the first one outermost.
        hooks: What is told of every call; see :class:`Hooks`.
        options: gRPC channel arguments, beside or in place of the defaults.

    Raises:
        ValueError: The address or an option makes no sense.
        RuntimeError: gRPC does not work with the green threads of this program.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None = TIMEOUT_SECONDS,
        headers: HeaderSource | None = None,
        token: Token | None = None,
        restricted: Mapping[str, str] | None = None,
        tls: TLS | bool = False,
        credentials: Any | None = None,
        retries: int = 2,
        compression: Compression | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        interceptors: Sequence[Any] = (),
        hooks: Hooks | None = None,
        options: Mapping[str, int | str] | None = None,
    ) -> None:
        arguments = dict(locals())
        del arguments["self"]
        self._origin = Origin(type(self), arguments, self)
        prepare_green_threads()
        Deadline(timeout)
        settings = channel_settings(
            url,
            tls=tls,
            credentials=credentials,
            headers=headers,
            options=options,
            token=token,
            restricted=restricted,
            compression=compression,
            max_response_bytes=max_response_bytes,
            interceptors=interceptors,
        )
        self.url = url
        self.timeout = timeout
        self._calls = Calls(url)
        self._transport = Transport(settings, retries, hooks)
        self._pinned = Transport(settings.pinned(), 0, hooks)
        self._regions = Regions()
        self._models: dict[tuple[str, str], Model] = {}
        self.repository = Repository(self._transport, self._calls, timeout, self._models)

    def live(self, *, deadline: float = PROBE_SECONDS) -> bool:
        """Tell whether the server runs; ``False`` where nothing answers in ``deadline`` seconds."""
        return self._probe(self._calls.live(), deadline)

    def ready(self, *, deadline: float = PROBE_SECONDS) -> bool:
        """Tell whether the server can serve; ``False`` where nothing answers in ``deadline`` s."""
        return self._probe(self._calls.ready(), deadline)

    def wait_until_ready(self, timeout: float = TIMEOUT_SECONDS) -> None:
        """Return once the server is ready.

        Args:
            timeout: The longest wait, in seconds.

        Raises:
            DeadlineExceeded: It was not ready in time.
        """
        limit = Deadline(timeout)
        while True:
            probe = Deadline(limit.within(PROBE_SECONDS))
            reason = ""
            try:
                if self._transport.run(self._calls.ready(), probe, retry=False):
                    return
            except DeadlineExceeded:
                pass
            except (Unavailable, NotReady) as error:
                reason = f"; {error.message}"
            if limit.remaining() == 0:
                raise DeadlineExceeded(f"not ready after {timeout:g} s{reason}", server=self.url)
            time.sleep(limit.within(POLL_SECONDS))

    def metadata(self) -> ServerMetadata:
        """Return the server's name, version and extensions.

        Raises:
            TritonClientError: The call failed.
        """
        return self._transport.run(self._calls.metadata(), Deadline(self.timeout))

    def model(self, name: str, version: str | int | None = None) -> Model:
        """Return a model; what it takes and gives is fetched once and kept.

        Args:
            name: The model's name.
            version: The version; by default the server chooses at every call.

        Raises:
            ModelNotFound: The server has no such model or version.
            TritonClientError: The call failed otherwise.
        """
        key = (name, "" if version is None else str(version))
        model = self._models.get(key)
        if model is None:
            model = self.known_model(*key)
            model.refresh()
            self._models[key] = model
        return model

    def known_model(self, name: str, version: str) -> Model:
        """Return a model that is yet to learn what it takes and gives; see :meth:`model`."""
        return Model(
            self._transport,
            self._calls,
            server=self.url,
            name=name,
            version=version,
            timeout=self.timeout,
            pinned=self._pinned,
            regions=self._regions,
            origin=self._origin,
        )

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that can serve, sorted.

        Raises:
            TritonClientError: The call failed.
        """
        return tuple(sorted({entry.name for entry in self.repository.index(ready=True)}))

    def statistics(
        self, name: str | None = None, version: str | int | None = None
    ) -> tuple[Any, ...]:
        """Return ``service_pb2.ModelStatistics``, one a version; times in nanoseconds.

        Args:
            name: The model; all by default.
            version: The version; all by default.

        Raises:
            TritonClientError: The call failed.
        """
        call = self._calls.statistics(name or "", "" if version is None else str(version))
        return self._transport.run(call, Deadline(self.timeout))

    def shared_memory(self, nbytes: int) -> SharedMemory:
        """Return memory that a server on this machine reads and writes; use it in ``with``.

        Args:
            nbytes: Its size in bytes; each array begins at a multiple of 64.
        """
        return SharedMemory(self._pinned, self._calls, self._regions, nbytes, self.timeout)

    def shared_memory_status(self) -> tuple[SharedMemoryRegion, ...]:
        """Return the system shared memory that is registered with the server, by anybody.

        Raises:
            TritonClientError: The call failed.
        """
        call = self._calls.shared_memory()
        return self._pinned.run(call, Deadline(self.timeout))

    def close(self) -> None:
        """Close the channel; close shared memory before, so that the server lets go of it.

        Calls under way end with ``Unavailable``; another close is fine.
        """
        self._transport.close()
        self._pinned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin.client, (self._origin,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _probe(self, call: Any, deadline: float) -> bool:
        try:
            return bool(self._transport.run(call, Deadline(deadline), retry=False))
        except (Unavailable, DeadlineExceeded, NotReady):
            return False
