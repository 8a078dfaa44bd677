"""The OpenAPI document: fixed paths, and the requests of the models that answer right now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stlab_api import __version__
from stlab_api.problems import MEDIA_TYPE
from stlab_api.routes import JSON, NPZ
from stlab_api.schemas import to_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from stlab_api.plugins import EndpointPlugin
    from stlab_api.service import Served, Service

__all__ = ["document"]

_REF = "#/components/schemas/{model}"
# An example that fills screens helps nobody.
_MOST_NUMBERS = 4096
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:stlab:problem:invalid-input"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_TENSORS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
        },
    },
}
_INFO = {
    "type": "object",
    "required": ["name", "version", "alias"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "integer"},
        "alias": {"type": "string"},
    },
}
_MODEL = {
    "type": "object",
    "required": ["name", "alias", "version", "max_batch_size", "inputs", "outputs"],
    "properties": {
        **_INFO["properties"],  # type: ignore[dict-item]
        "max_batch_size": {"type": "integer"},
        "inputs": _TENSORS,
        "outputs": _TENSORS,
    },
}
_PREDICTION = {
    "type": "object",
    "required": ["model", "outputs"],
    "properties": {"model": _INFO, "outputs": {"type": "object"}},
}
_NPZ = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in NPZ}


def document(
    service: Service, transforms: Sequence[EndpointPlugin[Any, Any]], *, guarded: str
) -> dict[str, Any]:
    """Return the document.

    Args:
        service: What answers now.
        transforms: The plug-ins.
        guarded: ``keys``, ``tokens``, or empty where everybody may ask.
    """
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths: dict[str, Any] = {
        "/health/live": {"get": _got("Whether the process runs", {"type": "object"})},
        "/health/ready": {
            "get": _got("Whether it should get requests", {"type": "object"}, problems=(503,))
        },
        "/metrics": {
            "get": {
                "summary": "Prometheus metrics",
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                },
            }
        },
    }
    for name, served in sorted(service.models.items()):
        paths[f"/v1/models/{name}"] = {
            "get": _got(f"What '{name}' takes and gives", _MODEL, problems=(401, 503))
        }
        paths[f"/v1/models/{name}/predict"] = {"post": _predicted(name, served, schemas)}
    for transform in transforms:
        paths[transform.path] = {"post": _business(transform, schemas)}
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "stlab models", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if guarded:
        scheme = (
            {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            if guarded == "keys"
            else {"type": "http", "scheme": "bearer"}
        )
        whole["components"]["securitySchemes"] = {guarded: scheme}
        whole["security"] = [{guarded: []}]
    return whole


def _predicted(name: str, served: Served, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _schema(served.codec.request, schemas)}
    examples = served.predictor.examples
    if sum(array.size for array in examples.values()) <= _MOST_NUMBERS:
        content["example"] = {"inputs": to_lists(examples)}
    return _posted(
        f"Ask '{name}'", {JSON: content, **_NPZ}, {JSON: {"schema": _PREDICTION}, **_NPZ}
    )


def _business(transform: EndpointPlugin[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    given = {JSON: {"schema": _schema(transform.request, schemas)}}
    summary = (transform.__doc__ or transform.path).strip().split("\n")[0]
    return _posted(summary, given, {JSON: {"schema": _schema(transform.response, schemas)}})


def _schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, str]:
    made = model.model_json_schema(ref_template=_REF)
    schemas.update(made.pop("$defs", {}))
    schemas[model.__name__] = made
    return {"$ref": _REF.format(model=model.__name__)}


def _posted(summary: str, given: dict[str, Any], answered: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": given},
        "responses": {
            "200": {"description": "OK", "content": answered},
            **_problems((400, 401, 408, 413, 415, 422, 503, 504)),
        },
    }


def _got(summary: str, schema: dict[str, Any], problems: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {JSON: {"schema": schema}}},
            **_problems(problems),
        },
    }


def _problems(statuses: tuple[int, ...]) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {str(status): {"description": "Problem", "content": content} for status in statuses}
