"""The endpoints: health, metrics, models, predictions, and those of plug-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from exporter.arrays import Arrays
from stlab_api.context import SMALL, RequestContext, context_in
from stlab_api.metrics import Metrics
from stlab_api.npz import to_npz
from stlab_api.plugins import EndpointPlugin, ModelInfo
from stlab_api.problems import Problem, problem_responses
from stlab_api.request_body import too_large
from stlab_api.schemas import LARGE_ANSWER, check_finite, invalid, to_json
from stlab_api.service import LoadedModel, Service
from stlab_api.settings import Settings
from triton_client.types import ModelSpec

__all__ = ["JSON", "NPZ", "ModelDescription", "add_routes"]

JSON = "application/json"
NPZ = ("application/octet-stream", "application/x-npz")
# Bytes of a body that are read in milliseconds, whatever its content.
_SMALL_BODY = 32 * 1024
# Not the event loop's threads, which read the registry.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="codec")

T = TypeVar("T")


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
    """Add the endpoints; `stlab_api.openapi` documents those of models and plug-ins."""
    # Predictions first: the router tries the routes in their order.
    app.router.routes.append(_prediction_route(service, settings.alias))
    app.router.routes += [_plugin_route(service, settings, plugin) for plugin in plugins]

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

    @app.get("/v1/models/{name}", response_model=ModelDescription, include_in_schema=False)
    async def describe(name: str, request: Request) -> dict[str, Any]:
        model = service.model(name)
        context_in(request.scope).model = name
        spec = model.predictor.spec
        return {
            "name": name,
            "alias": settings.alias,
            "version": model.version,
            "max_batch_size": spec.max_batch_size,
            "inputs": spec.inputs,
            "outputs": spec.outputs,
        }


def _prediction_route(service: Service, alias: str) -> Route:
    async def predict(request: Request) -> Response:
        name = request.path_params["name"]
        model, context = _requested(service, name, request)
        body, seconds = context.body, context.seconds_left()
        small = len(body) <= _SMALL_BODY
        given = context.header(b"content-type", JSON).partition(";")[0].strip().lower()
        wanted = _media_type(context.header(b"accept"), given)
        if given == JSON and small:
            inputs = model.schema.from_json(body)
        elif given == JSON:
            read = partial(model.schema.from_large_json, body, until=monotonic() + seconds)
            inputs = await _run(read, small=False, seconds=seconds)
        elif given in NPZ:
            read = partial(model.schema.from_npz, body)
            inputs = await _run(read, small=small, seconds=seconds)
        else:
            raise Problem(415, "unknown-type", f"a body is {JSON} or {NPZ[0]} (a npz), not {given}")
        model, outputs = await _predict(service, name, inputs, context)
        if wanted == JSON:
            info = {"name": name, "version": model.version, "alias": alias}
            write = partial(to_json, model.predictor.spec, outputs, info)
        else:
            write = partial(to_npz, outputs)
        small = sum(array.size for array in outputs.values()) <= LARGE_ANSWER
        content = await _run(write, small=small, seconds=context.seconds_left())
        context.hold(len(content) - SMALL)
        headers = None if wanted == JSON else {"x-model-version": context.version}
        return Response(content, headers=headers, media_type=wanted)

    return _PlainRoute("/v1/models/{name}/predict", predict, methods=["POST"])


def _requested(service: Service, name: str, request: Request) -> tuple[LoadedModel, RequestContext]:
    context = context_in(request.scope)
    model = service.model(name)
    context.model, context.version = name, str(model.version)
    return model, context


async def _predict(
    service: Service, name: str, inputs: Arrays, context: RequestContext
) -> tuple[LoadedModel, Arrays]:
    model, outputs = await service.predict(
        name, inputs, seconds=context.seconds_left(), request_id=context.request_id
    )
    context.version = str(model.version)
    return model, outputs


def _plugin_route(service: Service, settings: Settings, plugin: EndpointPlugin[Any, Any]) -> Route:
    name = plugin.model

    def read(body: bytes, spec: ModelSpec) -> tuple[Any, Arrays]:
        try:
            question = plugin.request.model_validate_json(body)
            check_finite(body)
            return question, plugin.to_tensors(question, spec)
        except ValidationError as error:
            raise invalid(error) from error
        except ValueError as error:
            raise Problem(422, "invalid-input", str(error)) from error

    async def predict(request: Request) -> Response:
        model, context = _requested(service, name, request)
        # pydantic reads the whole body in one call, which delays other requests.
        if len(context.body) > settings.max_plugin_bytes:
            raise too_large(settings.max_plugin_bytes)
        small = len(context.body) <= _SMALL_BODY
        question, inputs = await _run(
            partial(read, context.body, model.predictor.spec),
            small=small,
            seconds=context.seconds_left(),
        )
        model, outputs = await _predict(service, name, inputs, context)
        info = ModelInfo(name=name, version=model.version, alias=settings.alias)
        content = await _run(
            lambda: plugin.to_response(question, outputs, info).model_dump_json().encode(),
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


async def _run(function: Callable[[], T], *, small: bool, seconds: float) -> T:
    """Return a function's result, at once if it is small: it takes milliseconds at most.

    Large work runs in a thread, so that no request blocks others. It must release the interpreter
    often: no call into C takes more than milliseconds.

    Raises:
        TimeoutError: The deadline passed.
    """
    if small:
        return function()
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().run_in_executor(_THREADS, function)
