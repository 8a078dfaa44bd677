"""The endpoints: health, metrics, models, predictions, and those of plug-ins."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.routing import Route

from stlab_api import offload
from stlab_api.finite import check_finite
from stlab_api.npz import to_npz
from stlab_api.operation import call_of
from stlab_api.plugins import ModelInfo
from stlab_api.problems import Problem
from stlab_api.request_body import too_large
from stlab_api.schemas import LARGE_ANSWER, invalid, to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from stlab_api.metrics import Metrics
    from stlab_api.operation import Direct
    from stlab_api.plugins import EndpointPlugin
    from stlab_api.predictor import Array
    from stlab_api.service import Service
    from stlab_api.settings import Settings
    from triton_client.types import ModelSpec

__all__ = ["JSON", "NPZ", "PREDICT", "direct_routes", "routes"]

JSON = "application/json"
NPZ = ("application/octet-stream", "application/x-npz")
PREDICT = "/v1/models/{name}/predict"


def routes(
    service: Service,
    metrics: Metrics,
    settings: Settings,
    transforms: list[EndpointPlugin[Any, Any]],
) -> list[Route]:
    """Return the routes.

    Args:
        service: What answers.
        metrics: What ``/metrics`` shows.
        settings: Which alias's versions answer, and the limits.
        transforms: The plug-ins.
    """
    alias = settings.alias

    async def live(_: Request) -> Response:
        return Response(b"{}", media_type=JSON)

    async def ready(_: Request) -> Response:
        why = await service.not_ready()
        if why:
            raise Problem(503, "not-ready", why, headers={"Retry-After": "1"})
        versions = {name: served.version for name, served in service.models.items()}
        return Response(orjson.dumps({"models": versions}), media_type=JSON)

    async def shown(_: Request) -> Response:
        metrics.ready.set(not await service.not_ready())
        page = await asyncio.to_thread(metrics.page)
        return Response(page, media_type="text/plain; version=0.0.4")

    async def described(request: Request) -> Response:
        name = request.path_params["name"]
        served = service.served(name)
        call_of(request.scope).model = name
        spec = served.predictor.spec
        return _json(
            {
                "name": name,
                "alias": alias,
                "version": served.version,
                "max_batch_size": spec.max_batch_size,
                "inputs": [_tensor(t) for t in spec.inputs],
                "outputs": [_tensor(t) for t in spec.outputs],
            }
        )

    async def predicted(request: Request) -> Response:
        name = request.path_params["name"]
        call = call_of(request.scope)
        service.served(name)
        call.model = name
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        wanted = _wanted(request.headers.get("accept", ""), kind)
        served = service.served(name)
        call.version = str(served.version)
        if kind == JSON:
            inputs = await served.codec.read_json(call.body, seconds=call.left())
        elif kind in NPZ:
            inputs = await served.codec.read_npz(call.body, seconds=call.left())
        else:
            raise Problem(415, "unknown-type", f"a body is {JSON} or {NPZ[0]} (a npz), not {kind}")
        answer = await service.predict(
            name, inputs, seconds=call.left(), request_id=call.request_id
        )
        call.version = str(answer.served.version)
        small = sum(array.size for array in answer.outputs.values()) <= LARGE_ANSWER
        if wanted != JSON:
            write = partial(to_npz, answer.outputs)
            content = await offload.run(write, small=small, seconds=call.left())
            about = {"x-model-version": call.version}
            return Response(content, headers=about, media_type=wanted)
        info = {"name": name, "version": answer.served.version, "alias": alias}
        write = partial(to_json, answer.served.predictor.spec, answer.outputs, info)
        content = await offload.run(write, small=small, seconds=call.left())
        return Response(content, media_type=JSON)

    return [
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", shown),
        Route("/v1/models/{name}", _named("/v1/models/{name}", described)),
        Route(PREDICT, _named(PREDICT, predicted), methods=["POST"]),
        *(_of_plugin(service, alias, t, settings.max_plugin_bytes) for t in transforms),
    ]


def direct_routes(found: Sequence[Route], models: Sequence[str]) -> dict[str, Direct]:
    """Return the endpoints that are posted to, by the paths of the models that are served."""
    posts = [route for route in found if "POST" in (route.methods or ())]
    return {
        route.path.format(name=name): (route.endpoint, {"name": name})
        for route in posts
        for name in models
    }


def _of_plugin(
    service: Service, alias: str, transform: EndpointPlugin[Any, Any], max_bytes: int
) -> Route:
    name = transform.model

    def read(body: bytes, spec: ModelSpec) -> tuple[Any, Mapping[str, Array]]:
        try:
            asked = transform.request.model_validate_json(body)
            check_finite(body)
            return asked, transform.to_tensors(asked, spec)
        except ValidationError as error:
            raise invalid(error) from error
        except ValueError as error:
            raise Problem(422, "invalid-input", str(error)) from error

    async def answered(request: Request) -> Response:
        call = call_of(request.scope)
        served = service.served(name)
        call.model = name
        call.version = str(served.version)
        # A plug-in's own model reads it in one call, which holds up other requests meanwhile.
        if len(call.body) > max_bytes:
            raise too_large(max_bytes)
        small = len(call.body) <= offload.SMALL_BODY
        asked, inputs = await offload.run(
            partial(read, call.body, served.predictor.spec), small=small, seconds=call.left()
        )
        answer = await service.predict(
            name, inputs, seconds=call.left(), request_id=call.request_id
        )
        call.version = str(answer.served.version)
        info = ModelInfo(name=name, version=answer.served.version, alias=alias)
        return await offload.run(
            lambda: _json(transform.to_response(asked, answer.outputs, info)),
            small=small,
            seconds=call.left(),
        )

    return Route(transform.path, _named(transform.path, answered), methods=["POST"])


def _named(
    template: str, endpoint: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def named(request: Request) -> Response:
        call_of(request.scope).route = template
        return await endpoint(request)

    return named


def _wanted(accepted: str, given: str) -> str:
    """Return the type to answer in: what the caller accepts, else what it sent."""
    for kind in (JSON, *NPZ):
        if kind in accepted:
            return kind
    return given if given in NPZ else JSON


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _json(content: Any) -> Response:
    body = (
        content.model_dump_json().encode()
        if isinstance(content, BaseModel)
        else orjson.dumps(content)
    )
    return Response(body, media_type=JSON)
