"""A server's model repository."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from triton_client import _requests as requests
from triton_client._aio_transport import AsyncTransport
from triton_client._async.model import AsyncModel
from triton_client._deadline import LOAD_SECONDS, Deadline
from triton_client._failures import NOT_POLLED, Place
from triton_client.errors import ModelNotFound, NotReady, ServerError
from triton_client.types import RepositoryEntry

__all__ = ["AsyncRepository"]


class AsyncRepository:
    """The models in a server's repository, and which of them are loaded."""

    __slots__ = ("_models", "_server", "_timeout", "_transport")

    def __init__(
        self,
        transport: AsyncTransport,
        server: str,
        timeout: float | None,
        models: dict[tuple[str, str], AsyncModel],
    ) -> None:
        self._transport = transport
        self._server = server
        self._timeout = timeout
        self._models = models

    async def index(self, *, ready: bool = False) -> tuple[RepositoryEntry, ...]:
        """Return every model version that the server knows.

        Args:
            ready: Only those that can serve.
        """
        call = requests.index(self._server, ready=ready)
        return await self._transport.run(call, Deadline(self._timeout))

    async def load(
        self,
        name: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        deadline: float | None = None,
    ) -> None:
        """Load a model, or load it again; returns when it serves.

        Args:
            name: The model's name.
            config: A config as JSON that replaces the model's config.pbtxt, also at later loads
                until the model is unloaded.
            files: By path in the model's directory, such as ``1/model.onnx``: the model itself,
                for a server that shares no disk. Needs ``config``.
            deadline: Seconds; 600 by default.

        Raises:
            InvalidInput: There are files, but no config.
            ModelNotFound: The repository has no such model.
            TritonClientError: The model did not load; what was loaded before stays loaded.
        """
        call = requests.load(Place(self._server, name), config, files)
        try:
            await self._change(call, name, deadline)
        except ServerError as error:
            # Triton says the same of a missing model and of one that it cannot read.
            if NOT_POLLED in error.message and not await self._knows(name):
                raise call.place.error(ModelNotFound, error.message) from error
            raise

    async def unload(
        self, name: str, *, dependents: bool = False, deadline: float | None = None
    ) -> None:
        """Unload a model; returns at once, while requests under way are still answered.

        Args:
            name: The model's name.
            dependents: Unload the models that only this ensemble uses, too.
            deadline: Seconds; 600 by default.

        Raises:
            ModelNotFound: The server does not know the model.
        """
        call = requests.unload(Place(self._server, name), dependents=dependents)
        known = await self._knows(name)
        await self._change(call, name, deadline)
        if not known:
            raise call.place.error(ModelNotFound, "the server does not know the model")

    async def _knows(self, name: str) -> bool:
        """Whether a model serves, perhaps sent with its load, or is in the repository."""
        call = requests.model_ready(Place(self._server, name))
        with suppress(ModelNotFound, NotReady):
            if await self._transport.run(call, Deadline(self._timeout)):
                return True
        return any(entry.name == name for entry in await self.index())

    async def _change(self, call: requests.Call[None], name: str, deadline: float | None) -> None:
        try:
            await self._transport.run(
                call, Deadline(LOAD_SECONDS if deadline is None else deadline)
            )
        finally:
            for key in [key for key in self._models if key[0] == name]:
                self._models.pop(key, None)
