"""What answers: one model version, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_client.types import ModelSpec

__all__ = ["Array", "Arrays", "Backend", "Found", "Predictor"]

Array = npt.NDArray[Any]
Arrays = "Mapping[str, Array]"


@dataclass(frozen=True, slots=True)
class Found:
    """What an alias names.

    Attributes:
        version: The version.
        tags: Its tags.
    """

    version: int
    tags: Mapping[str, str]


class Predictor(Protocol):
    """One version of a model.

    Attributes:
        spec: What it takes and gives; a first axis of -1 is one of rows.
        version: The version that answers.
        examples: Inputs that are known to be answered, for warming up and for documentation.
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
        """Tell whether it can answer now."""

    async def close(self) -> None:
        """Finish what is under way, and let go of everything."""


class Backend(Protocol):
    """Opens predictors."""

    async def choose(self, name: str, found: Found) -> int:
        """Return the version that is to answer where an alias names one.

        Raises:
            StlabError: None can.
            TritonClientError: The server cannot say.
        """

    async def open(self, name: str, version: int, found: Found) -> Predictor:
        """Open a version and have it ready to answer.

        Raises:
            StlabError: It cannot be served.
            TritonClientError: The server cannot say.
        """

    async def close(self) -> None:
        """Let go of everything."""
