"""A server's model repository, for threads."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from triton_client._deadline import Deadline
from triton_client._defaults import LOAD_SECONDS
from triton_client._failures import NOT_POLLED
from triton_client.errors import ModelNotFound, NotReady, ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_client._calls import Calls
    from triton_client._model import Model
    from triton_client._transport import Transport
    from triton_client.types import RepositoryEntry

__all__ = ["Repository"]


class Repository:
    """A server's model repository: what lies in it, and what of it is loaded."""

    __slots__ = ("_calls", "_models", "_timeout", "_transport")

    def __init__(
        self,
        transport: Transport,
        calls: Calls,
        timeout: float | None,
        models: dict[tuple[str, str], Model],
    ) -> None:
        self._transport = transport
        self._calls = calls
        self._timeout = timeout
        self._models = models

    def index(self, *, ready: bool = False) -> tuple[RepositoryEntry, ...]:
        """Return every model version that the server knows of.

        Args:
            ready: Only those that can serve.

        Raises:
            TritonClientError: The call failed.
        """
        return self._transport.run(self._calls.index(ready=ready), Deadline(self._timeout))

    def load(
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
            config: A config as JSON that stands in for the model's config.pbtxt, also at later
                loads until the model is unloaded.
            files: By path in the model's directory, such as ``1/model.onnx``: the model itself,
                for a server that shares no disk. Needs ``config``.
            deadline: Seconds; 600 by default.

        Raises:
            InvalidInput: There are files, but no config.
            ModelNotFound: The repository has no such model.
            TritonClientError: The model did not load; what was loaded before goes on serving.
        """
        call = self._calls.load(name, config=config, files=files)
        try:
            self._change(call, name, deadline)
        except ServerError as error:
            # Triton says the same of a model that is not there and of one that cannot be read.
            if NOT_POLLED in error.message and not self._knows(name):
                raise call.failure("NOT_FOUND", error.message).error from error
            raise

    def unload(self, name: str, *, dependents: bool = False, deadline: float | None = None) -> None:
        """Unload a model; returns at once, while requests under way are still answered.

        Args:
            name: The model's name.
            dependents: The models that only an ensemble used, too.
            deadline: Seconds; 600 by default.

        Raises:
            ModelNotFound: The server knows of no such model.
            TritonClientError: The call failed.
        """
        call = self._calls.unload(name, dependents=dependents)
        known = self._knows(name)
        self._change(call, name, deadline)
        if not known:
            raise call.failure("NOT_FOUND", "the server knows of no such model").error

    def _knows(self, name: str) -> bool:
        """Whether a model serves, perhaps sent with its load, or is in the repository."""
        deadline = Deadline(self._timeout)
        with suppress(ModelNotFound, NotReady):
            if self._transport.run(self._calls.model_ready(name, ""), deadline):
                return True
        return any(entry.name == name for entry in self.index())

    def _change(self, call: Any, name: str, deadline: float | None) -> None:
        try:
            self._transport.run(call, Deadline(LOAD_SECONDS if deadline is None else deadline))
        finally:
            for key in [key for key in self._models if key[0] == name]:
                self._models.pop(key, None)
