"""What a backend provides: model versions that answer, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from triton_client.types import ModelSpec

__all__ = ["AliasTarget", "Array", "Backend", "Predictor"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """The version that an alias points to.

    Attributes:
        version: The version.
        tags: Its tags.
    """

    version: int
    tags: Mapping[str, str]


class Predictor(Protocol):
    """One version of a model.

    Attributes:
        spec: Its inputs and outputs; a first axis of -1 counts rows.
        version: The version.
        examples: Valid inputs, for the warm-up and the documentation.
    """

    spec: ModelSpec
    version: int
    examples: Mapping[str, Array]

    async def predict(
        self, inputs: Mapping[str, Array], *, seconds: float, request_id: str = ""
    ) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return the outputs.

        Args:
            inputs: The inputs by name.
            seconds: The deadline.
            request_id: Shown in a server's logs and traces.

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
