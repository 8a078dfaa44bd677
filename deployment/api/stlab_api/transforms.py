"""Business endpoints: plug-ins that turn people's words into tensors and back.

A plug-in is an entry point of the group ``stlab_api.transforms``: a class without arguments.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stlab_api.predictor import Array
    from triton_client.types import ModelSpec

__all__ = ["GROUP", "ModelInfo", "Transform", "found_transforms"]

GROUP = "stlab_api.transforms"

Request = TypeVar("Request", bound=BaseModel)
Response = TypeVar("Response", bound=BaseModel)


class ModelInfo(BaseModel):
    """Which model answered."""

    name: str
    version: int
    alias: str


class Transform(Protocol, Generic[Request, Response]):
    """One business endpoint.

    Attributes:
        model: The registered model that answers.
        path: Where requests are posted, such as ``/v1/income/forecast``.
        request: The pydantic model of a request; its examples are those of the documentation.
        response: The pydantic model of a response.
    """

    model: ClassVar[str]
    path: ClassVar[str]
    request: type[Request]
    response: type[Response]

    def to_tensors(self, request: Request, spec: ModelSpec) -> Mapping[str, Array]:
        """Return the model's inputs.

        Raises:
            ValueError: What is asked makes no sense; the message is for the person who asked.
        """

    def to_response(
        self, request: Request, outputs: Mapping[str, Array], model: ModelInfo
    ) -> Response:
        """Return the answer in people's words."""


def found_transforms(models: tuple[str, ...]) -> list[Transform[Any, Any]]:
    """Return the installed plug-ins of the models that are served, by path."""
    found = [entry.load()() for entry in entry_points(group=GROUP)]
    return sorted((t for t in found if t.model in models), key=lambda t: t.path)
