"""What a backend provides: model versions that answer, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from exporter.arrays import Arrays
from triton_client.types import ModelSpec

__all__ = ["AliasTarget", "Backend", "Predictor"]


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """The version that an alias points to, and its tags."""

    version: int
    tags: Mapping[str, str]


class Predictor(Protocol):
    """One version of a model.

    Attributes:
        spec: Its inputs and outputs; a first axis of -1 counts rows.
        examples: Valid inputs, for the warm-up and the documentation.
    """

    spec: ModelSpec
    version: int
    examples: Arrays

    async def predict(self, inputs: Arrays, *, seconds: float, request_id: str = "") -> Arrays:
        """Return the outputs; a server's logs and traces show the request's id.

        Raises:
            TimeoutError: The deadline passed.
            TritonClientError: A server refused or failed.
        """

    async def ready(self) -> bool:
        """Return whether it can answer now."""

    async def close(self) -> None:
        """Finish the runs under way, and free its resources."""


class Backend(Protocol):
    """Opens predictors."""

    async def choose(self, name: str, target: AliasTarget) -> int:
        """Return the version to serve for an alias.

        Raises:
            StlabError: No version can be served.
            TritonClientError: The server failed or is unavailable.
        """

    async def open(self, name: str, version: int, target: AliasTarget) -> Predictor:
        """Open a version.

        Raises:
            StlabError: It cannot be served.
            TritonClientError: The server failed or is unavailable.
        """

    async def close(self) -> None:
        """Free its resources."""
