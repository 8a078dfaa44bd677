"""The client for an event loop."""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Mapping, Sequence
from typing import Any, Self

from triton_client import _requests as requests
from triton_client._aio_transport import AsyncTransport
from triton_client._async.model import AsyncModel
from triton_client._async.repository import AsyncRepository
from triton_client._async.shared_memory import AsyncSharedMemory
from triton_client._channel import MAX_RESPONSE_BYTES, TLS, Compression, channel_settings
from triton_client._deadline import POLL_SECONDS, PROBE_SECONDS, TIMEOUT_SECONDS, Deadline
from triton_client._failures import Place
from triton_client._headers import HeaderSource, Token
from triton_client._hooks import Hooks
from triton_client._origin import Origin, renamed
from triton_client._shared_memory import ShmRegistry
from triton_client._statistics import ModelStatistics
from triton_client.errors import DeadlineExceeded, NotReady, Unavailable
from triton_client.types import ServerMetadata, SharedMemoryRegion

__all__ = ["AsyncTritonClient"]


class AsyncTritonClient:
    """A Triton Inference Server, over gRPC, for one event loop at a time.

    The channel opens at the first call. What calls the server raises a :class:`TritonClientError`
    where that fails.

    Args:
        url: ``host:port``, ``grpc://host:port``, ``grpcs://host:port``, or a gRPC target such as
            ``unix:/run/triton.sock``. Every address of a name is used in turn.
        timeout: The default deadline of a call in seconds; ``None`` for none.
        headers: Sent with every call; or a function that returns them, called before every attempt
            of a call. What it raises, the call raises.
        token: Sent as ``authorization: Bearer …``; or a function that returns it, as for
            ``headers``.
        protocol_keys: The secrets of Triton's restricted protocols, by key: ``{"admin": secret}``
            sends ``triton-grpc-protocol-admin: secret``.
        tls: ``True`` for TLS with gRPC's own authorities, or :class:`TLS` certificates.
        credentials: ``grpc.ChannelCredentials`` in place of ``tls``.
        retries: The most retries of a call whose connection broke.
        compression: ``gzip`` or ``deflate`` for requests; rarely worth its time on a fast network.
        max_response_bytes: The largest response that is accepted, at most 2**31 - 1; a larger one
            is a ``ServerError``.
        interceptors: Those of ``grpc.aio``, the first one outermost.
        event_hooks: Called at the start and the end of every call; see :class:`Hooks`.
        options: gRPC channel arguments, in addition to the defaults or in place of them.
        restricted: Deprecated: ``protocol_keys``.
        hooks: Deprecated: ``event_hooks``.

    Raises:
        ValueError: The address or an option is invalid.
        RuntimeError: gRPC does not work with the green threads of this program.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None = TIMEOUT_SECONDS,
        headers: HeaderSource | None = None,
        token: Token | None = None,
        protocol_keys: Mapping[str, str] | None = None,
        tls: TLS | bool = False,
        credentials: Any | None = None,
        retries: int = 2,
        compression: Compression | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        interceptors: Sequence[Any] = (),
        event_hooks: Hooks | None = None,
        options: Mapping[str, int | str] | None = None,
        restricted: Mapping[str, str] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        arguments = dict(locals())
        del arguments["self"]
        protocol_keys = renamed(arguments, "restricted", "protocol_keys")
        event_hooks = renamed(arguments, "hooks", "event_hooks")
        self._origin = Origin(type(self), arguments, self)
        Deadline(timeout)
        settings = channel_settings(
            url,
            tls=tls,
            credentials=credentials,
            headers=headers,
            options=options,
            token=token,
            protocol_keys=protocol_keys,
            compression=compression,
            max_response_bytes=max_response_bytes,
            interceptors=interceptors,
        )
        self.url = url
        self.timeout = timeout
        self._transport = AsyncTransport(settings, retries, event_hooks)
        self._pinned = AsyncTransport(settings.pinned(), 0, event_hooks)
        self._shm = ShmRegistry()
        self._models: dict[tuple[str, str], AsyncModel] = {}
        self.repository = AsyncRepository(self._transport, url, timeout, self._models)

    async def live(self, *, deadline: float = PROBE_SECONDS) -> bool:
        """Check whether the server runs; ``False`` where nothing answers in ``deadline`` s."""
        return await self._probe(requests.live(self.url), deadline)

    async def ready(self, *, deadline: float = PROBE_SECONDS) -> bool:
        """Check whether the server can serve; ``False`` where nothing answers in ``deadline`` s."""
        return await self._probe(requests.ready(self.url), deadline)

    async def wait_until_ready(
        self,
        timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109
    ) -> None:
        """Return once the server is ready.

        Args:
            timeout: The longest wait, in seconds.

        Raises:
            DeadlineExceeded: It was not ready in time.
        """
        limit, reason = Deadline(timeout), ""
        while True:
            probe = Deadline(limit.within(PROBE_SECONDS))
            try:
                if await self._transport.run(requests.ready(self.url), probe, retry=False):
                    return
                reason = ""
            except DeadlineExceeded:
                pass
            except (Unavailable, NotReady) as error:
                reason = f"; {error.message}"
            if limit.remaining() == 0:
                raise DeadlineExceeded(f"not ready after {timeout:g} s{reason}", server=self.url)
            await sleep(limit.within(POLL_SECONDS))

    async def metadata(self) -> ServerMetadata:
        """Return the server's name, version and extensions."""
        return await self._transport.run(requests.metadata(self.url), Deadline(self.timeout))

    async def model(self, name: str, version: str | int | None = None) -> AsyncModel:
        """Return a model; its inputs and outputs are fetched once and kept.

        Args:
            name: The model's name.
            version: The version; by default the server chooses at every call.

        Raises:
            ModelNotFound: The server has no such model or version.
        """
        key = (name, "" if version is None else str(version))
        model = self._models.get(key)
        if model is None:
            model = self.known_model(*key)
            await model.refresh()
            self._models[key] = model
        return model

    def known_model(self, name: str, version: str) -> AsyncModel:
        """Return a model whose inputs and outputs are not fetched yet; see :meth:`model`."""
        place = Place(self.url, name, version)
        return AsyncModel(
            self._transport, self._pinned, place, self.timeout, self._shm, self._origin
        )

    async def models(self) -> tuple[str, ...]:
        """Return the names of the models that can serve, sorted."""
        return tuple(sorted({entry.name for entry in await self.repository.index(ready=True)}))

    async def statistics(
        self, name: str | None = None, version: str | int | None = None
    ) -> tuple[ModelStatistics, ...]:
        """Return the counters of each model version; times in nanoseconds.

        Args:
            name: The model; all by default.
            version: The version; all by default.
        """
        place = Place(self.url, name or "", "" if version is None else str(version))
        return await self._transport.run(requests.statistics(place), Deadline(self.timeout))

    async def trace_settings(self, model: str = "") -> dict[str, tuple[str, ...]]:
        """Return the trace settings of a model, or of the server by default."""
        return await self.update_trace_settings({}, model)

    async def update_trace_settings(
        self, settings: Mapping[str, object], model: str = ""
    ) -> dict[str, tuple[str, ...]]:
        """Change trace settings and return all of them.

        Args:
            settings: Such as ``{"trace_level": ["TIMESTAMPS"], "trace_rate": 100}``; ``None``
                restores what holds without the setting.
            model: The model whose settings they are; the server's by default.
        """
        call = requests.trace_settings(Place(self.url, model), settings)
        return await self._transport.run(call, Deadline(self.timeout))

    async def log_settings(self) -> dict[str, bool | int | str]:
        """Return the server's log settings."""
        return await self.update_log_settings({})

    async def update_log_settings(
        self, settings: Mapping[str, bool | int | str]
    ) -> dict[str, bool | int | str]:
        """Change log settings, such as ``{"log_verbose_level": 1}``, and return all of them."""
        call = requests.log_settings(self.url, settings)
        return await self._transport.run(call, Deadline(self.timeout))

    def shared_memory(self, nbytes: int) -> AsyncSharedMemory:
        """Return memory that a server on this machine reads and writes; use it in ``async with``.

        Args:
            nbytes: Its size in bytes; each array begins at a multiple of 64.
        """
        return AsyncSharedMemory(self._pinned, self.url, self._shm, nbytes, self.timeout)

    async def shared_memory_status(self) -> tuple[SharedMemoryRegion, ...]:
        """Return the system shared memory that is registered with the server, by any client."""
        return await self._pinned.run(requests.shared_memory(self.url), Deadline(self.timeout))

    async def close(self) -> None:
        """Close the channel; close shared memory first, so that the server releases it.

        Calls under way end with ``Unavailable``. Closing again does nothing.
        """
        await self._transport.close()
        await self._pinned.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin.client, (self._origin,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def _probe(self, call: requests.Call[bool], deadline: float) -> bool:
        try:
            return await self._transport.run(call, Deadline(deadline), retry=False)
        except (Unavailable, DeadlineExceeded, NotReady):
            return False
