"""The OpenAPI document, which shows the requests of the versions that answer at the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRouter
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from stlab_api.plugins import EndpointPlugin, ModelInfo
from stlab_api.problems import PROBLEM_SCHEMA, problem_responses
from stlab_api.routes import JSON, NPZ, ModelDescription
from stlab_api.schemas import to_lists
from stlab_api.service import LoadedModel, Service

__all__ = ["OpenAPIDocument"]

_SECURITY_SCHEMES = {
    "keys": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "tokens": {"type": "http", "scheme": "bearer"},
}
# A larger example fills screens.
_MOST_NUMBERS = 4096
_REF = "#/components/schemas/{model}"
_NPZ = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in NPZ}
_POST_PROBLEMS = problem_responses(400, 401, 408, 413, 415, 422, 503, 504)


class Prediction(BaseModel):
    """A model's outputs."""

    model: ModelInfo
    outputs: dict[str, Any]


@dataclass
class OpenAPIDocument:
    """FastAPI's document of the application's routes, with paths for each model that answers.

    The security is ``keys``, ``tokens`` or empty.
    """

    app: FastAPI
    service: Service
    plugins: Sequence[EndpointPlugin[Any, Any]]
    security: str
    _versions: dict[str, int] | None = None
    _document: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> dict[str, Any]:
        """Return the document, which is made again only after a change of versions."""
        versions = {name: model.version for name, model in self.service.models.items()}
        if versions != self._versions:
            self._document, self._versions = self._make(), versions
        return self._document

    def _make(self) -> dict[str, Any]:
        described = APIRouter()
        for name, model in sorted(self.service.models.items()):
            _describe_model(described, name, model)
        for plugin in self.plugins:
            _describe_plugin(described, plugin)
        whole = get_openapi(
            title=self.app.title,
            version=self.app.version,
            routes=[*self.app.routes, *described.routes],
            separate_input_output_schemas=False,
        )
        # FastAPI would round the limits of 64-bit integers.
        requests = [model.schema.request for model in self.service.models.values()]
        requests += [plugin.request for plugin in self.plugins]
        _, definitions = models_json_schema(
            [(request, "validation") for request in requests], ref_template=_REF
        )
        components = whole["components"]
        components["schemas"] |= {"Problem": PROBLEM_SCHEMA, **definitions.get("$defs", {})}
        if name := self.security:
            components["securitySchemes"] = {name: _SECURITY_SCHEMES[name]}
            whole["security"] = [{name: []}]
        return whole


def _describe_model(router: APIRouter, name: str, model: LoadedModel) -> None:
    router.add_api_route(
        f"/v1/models/{name}",
        _endpoint,
        operation_id=f"describe {name}",
        summary=f"What '{name}' takes and gives",
        response_model=ModelDescription,
        responses=problem_responses(401, 503),
    )
    body = _json_body(model.schema.request)
    body["content"] |= _NPZ
    examples = model.predictor.examples
    if sum(array.size for array in examples.values()) <= _MOST_NUMBERS:
        body["content"][JSON]["example"] = {"inputs": to_lists(examples)}
    router.add_api_route(
        f"/v1/models/{name}/predict",
        _endpoint,
        methods=["POST"],
        operation_id=f"predict {name}",
        summary=f"Predict with '{name}'",
        response_model=Prediction,
        responses={200: {"content": _NPZ}, **_POST_PROBLEMS},
        openapi_extra={"requestBody": body},
    )


def _describe_plugin(router: APIRouter, plugin: EndpointPlugin[Any, Any]) -> None:
    router.add_api_route(
        plugin.path,
        _endpoint,
        methods=["POST"],
        operation_id=plugin.path,
        summary=(plugin.__doc__ or plugin.path).strip().split("\n")[0],
        response_model=plugin.response,
        responses=_POST_PROBLEMS,
        openapi_extra={"requestBody": _json_body(plugin.request)},
    )


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"required": True, "content": {JSON: {"schema": schema}}}


async def _endpoint() -> None: ...  # stands for the real one in the document
