"""The backend ``triton``: a version on a Triton server."""

from __future__ import annotations

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.errors import NotFoundError
from exporter.text.redaction import learn
from exporter.triton.credentials import Credentials
from stlab_api.predictor import AliasTarget
from triton_client import AsyncModel, AsyncTritonClient
from triton_client.types import TensorSpec

__all__ = ["TritonBackend", "TritonPredictor"]


class TritonBackend:
    """Opens versions of one server, by its gRPC address."""

    def __init__(self, url: str) -> None:
        learn(url)
        self._client = AsyncTritonClient(**Credentials.of().for_server(url))

    async def choose(self, name: str, target: AliasTarget) -> int:
        """Return the alias's version if the server has it ready, else the newest ready one.

        A promotion is served before its alias moves: the version that the alias still points to
        may be unloaded, and the one that is loaded has been proven.
        """
        index = await self._client.repository.index(ready=True)
        ready = {int(e.version) for e in index if e.name == name and e.version.isdecimal()}
        if not ready:
            raise NotFoundError(
                f"the server at {self._client.url} has no version of '{name}' ready",
                hint="Run stlab status --triton-url.",
            )
        return target.version if target.version in ready else max(ready)

    async def open(self, name: str, version: int, target: AliasTarget) -> TritonPredictor:  # noqa: ARG002
        """Fetch a version's metadata; see `Backend`."""
        return TritonPredictor(await self._client.model(name, version), version)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class TritonPredictor:
    """One version of a server's model; see `Predictor`."""

    def __init__(self, model: AsyncModel, version: int) -> None:
        self.version = version
        self.spec = model.spec
        self.examples: Arrays = {t.name: _blank(t) for t in model.spec.inputs}
        self._model = model

    async def predict(self, inputs: Arrays, *, seconds: float, request_id: str = "") -> Arrays:
        """Return the outputs; see `Predictor`."""
        return await self._model.infer(inputs, deadline=seconds, request_id=request_id)

    async def ready(self) -> bool:
        """Check it on the server."""
        return await self._model.ready(deadline=1.0)

    async def close(self) -> None:
        """Do nothing: the backend owns the connections."""


def _blank(tensor: TensorSpec) -> Array:
    shape = [1 if size == -1 else size for size in tensor.shape]
    if tensor.datatype == "BYTES":
        return np.full(shape, b"", object)
    return np.zeros(shape, tensor.dtype)
