"""The endpoints: health, metrics, models, predictions, and those of plug-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route

from stlab_api import offload
from stlab_api.context import SMALL, RequestContext, context_in, request_context
from stlab_api.finite import check_finite
from stlab_api.npz import to_npz
from stlab_api.plugins import EndpointPlugin, ModelInfo
from stlab_api.predictor import Array
from stlab_api.problems import Problem, problem_responses
from stlab_api.request_body import too_large
from stlab_api.schemas import LARGE_ANSWER, invalid, to_json
from triton_client.types import ModelSpec

if TYPE_CHECKING:
    from starlette.types import Scope

    from stlab_api.metrics import Metrics
    from stlab_api.service import Answer, Service
    from stlab_api.settings import Settings

__all__ = ["JSON", "NPZ", "ModelDescription", "add_routes"]

JSON = "application/json"
NPZ = ("application/octet-stream", "application/x-npz")

Context = Annotated[RequestContext, Depends(request_context)]


class ServedVersions(BaseModel):
    """The version that answers for each model."""

    models: dict[str, int]


class Tensor(BaseModel):
    """An input or output; -1 in its shape is a variable size."""

    name: str
    datatype: str
    shape: list[int]


class ModelDescription(BaseModel):
    """What a model takes and returns."""

    name: str
    alias: str
    version: int
    max_batch_size: int
    inputs: list[Tensor]
    outputs: list[Tensor]


class _PlainRoute(Route):
    """Starlette's route without FastAPI's validation and dependencies, for POST requests.

    Those cost a request half as much again as all else in the service; docs/api.md has the figures.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as Starlette does, and put the route into the scope as FastAPI does."""
        match, found = super().matches(scope)
        return match, {**found, "route": self}


def add_routes(
    app: FastAPI,
    service: Service,
    metrics: Metrics,
    settings: Settings,
    plugins: list[EndpointPlugin[Any, Any]],
) -> None:
    """Add the endpoints to an application.

    Those of models and plug-ins are documented by `stlab_api.openapi`.

    Args:
        app: The application.
        service: The models.
        metrics: What ``/metrics`` shows.
        settings: Whose alias's versions answer, and the limits.
        plugins: The plug-ins.
    """
    # Predictions first: the router tries the routes in their order.
    app.router.routes.append(_prediction_route(service, settings.alias))
    app.router.routes += [_plugin_route(service, settings, plugin) for plugin in plugins]
    _add_monitoring(app, service, metrics)
    _add_description(app, service, settings.alias)


def _add_monitoring(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health/live", summary="Whether the process runs")
    async def live() -> dict[str, Any]:
        return {}

    @app.get(
        "/health/ready",
        summary="Whether it should get requests",
        responses=problem_responses(503),
    )
    async def ready() -> ServedVersions:
        why = await service.not_ready()
        if why:
            raise Problem(503, "not-ready", why)
        return ServedVersions(models={n: model.version for n, model in service.models.items()})

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        metrics.ready.set(not await service.not_ready())
        page = await asyncio.to_thread(metrics.page)
        return Response(page, media_type="text/plain; version=0.0.4")


def _add_description(app: FastAPI, service: Service, alias: str) -> None:
    @app.get("/v1/models/{name}", response_model=ModelDescription, include_in_schema=False)
    async def describe(name: str, context: Context) -> dict[str, Any]:
        model = service.model(name)
        context.model = name
        spec = model.predictor.spec
        return {
            "name": name,
            "alias": alias,
            "version": model.version,
            "max_batch_size": spec.max_batch_size,
            "inputs": spec.inputs,
            "outputs": spec.outputs,
        }


def _prediction_route(service: Service, alias: str) -> Route:
    async def predict(request: Request) -> Response:
        name, context = request.path_params["name"], context_in(request.scope)
        model = service.model(name)
        context.model, context.version = name, str(model.version)
        given = context.header(b"content-type", JSON).partition(";")[0].strip().lower()
        wanted = _media_type(context.header(b"accept"), given)
        if given == JSON:
            inputs = await model.schema.read_json(context.body, seconds=context.seconds_left())
        elif given in NPZ:
            inputs = await model.schema.read_npz(context.body, seconds=context.seconds_left())
        else:
            raise Problem(415, "unknown-type", f"a body is {JSON} or {NPZ[0]} (a npz), not {given}")
        answer = await _predict(service, name, inputs, context)
        if wanted == JSON:
            info = {"name": name, "version": answer.model.version, "alias": alias}
            write = partial(to_json, answer.model.predictor.spec, answer.outputs, info)
        else:
            write = partial(to_npz, answer.outputs)
        small = sum(array.size for array in answer.outputs.values()) <= LARGE_ANSWER
        content = await offload.run(write, small=small, seconds=context.seconds_left())
        context.hold(len(content) - SMALL)
        headers = None if wanted == JSON else {"x-model-version": context.version}
        return Response(content, headers=headers, media_type=wanted)

    return _PlainRoute("/v1/models/{name}/predict", predict, methods=["POST"])


async def _predict(
    service: Service, name: str, inputs: Mapping[str, Array], context: RequestContext
) -> Answer:
    answer = await service.predict(
        name, inputs, seconds=context.seconds_left(), request_id=context.request_id
    )
    context.version = str(answer.model.version)
    return answer


def _plugin_route(service: Service, settings: Settings, plugin: EndpointPlugin[Any, Any]) -> Route:
    name = plugin.model

    def read(body: bytes, spec: ModelSpec) -> tuple[Any, Mapping[str, Array]]:
        try:
            question = plugin.request.model_validate_json(body)
            check_finite(body)
            return question, plugin.to_tensors(question, spec)
        except ValidationError as error:
            raise invalid(error) from error
        except ValueError as error:
            raise Problem(422, "invalid-input", str(error)) from error

    async def predict(request: Request) -> Response:
        context = context_in(request.scope)
        model = service.model(name)
        context.model, context.version = name, str(model.version)
        # pydantic reads the whole body in one call, which delays other requests.
        if len(context.body) > settings.max_plugin_bytes:
            raise too_large(settings.max_plugin_bytes)
        small = len(context.body) <= offload.SMALL_BODY
        question, inputs = await offload.run(
            partial(read, context.body, model.predictor.spec),
            small=small,
            seconds=context.seconds_left(),
        )
        answer = await _predict(service, name, inputs, context)
        info = ModelInfo(name=name, version=answer.model.version, alias=settings.alias)
        content = await offload.run(
            lambda: plugin.to_response(question, answer.outputs, info).model_dump_json().encode(),
            small=small,
            seconds=context.seconds_left(),
        )
        context.hold(len(content) - SMALL)
        return Response(content, media_type=JSON)

    return _PlainRoute(plugin.path, predict, methods=["POST"])


def _media_type(accepted: str, given: str) -> str:
    """Return the type of the answer: what the caller accepts, else what it sent."""
    for kind in (JSON, *NPZ):
        if kind in accepted:
            return kind
    return given if given in NPZ else JSON
