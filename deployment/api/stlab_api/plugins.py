"""Endpoint plug-ins: business endpoints that other distributions add to the service.

A plug-in is a class without arguments; an entry point of the group `stlab_api.endpoints` names it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel

from exporter.arrays import Arrays
from stlab_web.plugins import check_paths, check_signature, check_texts, load_plugins
from triton_client.types import ModelSpec

__all__ = ["GROUPS", "EndpointPlugin", "ModelInfo", "load_endpoint_plugins"]

GROUPS = ("stlab_api.endpoints", "stlab_api.transforms")
"""The entry point groups; the second is the former name."""

_RESERVED = ("/v1/models", "/health", "/metrics", "/docs", "/openapi.json")

Request = TypeVar("Request", bound=BaseModel)
Response = TypeVar("Response", bound=BaseModel)


class ModelInfo(BaseModel):
    """Which model answered."""

    name: str
    version: int
    alias: str


class EndpointPlugin(Protocol, Generic[Request, Response]):
    """One business endpoint.

    Attributes:
        model: The registered model that answers.
        path: Where requests are posted, such as ``/v1/loans/risk``.
        request: The pydantic model of a request; its examples are those of the documentation.
        response: The pydantic model of a response.
    """

    model: ClassVar[str]
    path: ClassVar[str]
    request: type[Request]
    response: type[Response]

    def to_tensors(self, request: Request, spec: ModelSpec) -> Arrays:
        """Return the model's inputs.

        Raises:
            ValueError: The request is not valid; the caller reads the message.
        """

    def to_response(self, request: Request, outputs: Arrays, model: ModelInfo) -> Response:
        """Return the response for the model's outputs."""


def load_endpoint_plugins(models: tuple[str, ...]) -> list[EndpointPlugin[Any, Any]]:
    """Return the installed plug-ins of the models that are served, by path.

    Raises:
        UsageError: A plug-in is broken, or two have the same path; the message names it.
    """
    found = [plugin for group in GROUPS for plugin in load_plugins(group, _check)]
    served = [plugin for plugin in found if plugin.model in models]
    check_paths(served)
    return sorted(served, key=lambda plugin: plugin.path)


def _check(plugin: Any) -> None:
    check_texts(plugin, "model", "path")
    for name in ("request", "response"):
        kind = getattr(plugin, name, None)
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            raise TypeError(f"{name} is not a pydantic model")
    check_signature(plugin, "to_tensors", "request", "spec")
    check_signature(plugin, "to_response", "request", "outputs", "model")
    reserved = any(f"{plugin.path}/".startswith(f"{path}/") for path in _RESERVED)
    if reserved or not plugin.path.startswith("/"):
        raise ValueError(f"the path {plugin.path!r} is not free: give one such as /v1/loans/risk")
