"""The endpoints: health, metrics, models, predictions, and those of plug-ins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.routing import Route

from stlab_api.operation import call_of
from stlab_api.problems import Problem
from stlab_api.schemas import invalid, to_json, to_npz
from stlab_api.transforms import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request

    from stlab_api.metrics import Metrics
    from stlab_api.operation import Direct
    from stlab_api.service import Service
    from stlab_api.transforms import Transform

__all__ = ["JSON", "NPZ", "PREDICT", "direct_routes", "routes"]

JSON = "application/json"
NPZ = ("application/octet-stream", "application/x-npz")
PREDICT = "/v1/models/{name}/predict"


def routes(
    service: Service, metrics: Metrics, alias: str, transforms: list[Transform[Any, Any]]
) -> list[Route]:
    """Return the routes.

    Args:
        service: What answers.
        metrics: What ``/metrics`` shows.
        alias: The alias whose versions answer.
        transforms: The plug-ins.
    """

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
        body = await request.body()
        served = service.served(name)  # only now: another version may answer since it began
        call.version = str(served.version)
        if kind == JSON:
            inputs = served.codec.from_json(body)
        elif kind in NPZ:
            inputs = served.codec.from_npz(body)
        else:
            raise Problem(415, "unknown-type", f"a body is {JSON} or {NPZ[0]} (a npz), not {kind}")
        answer = await service.predict(
            name, inputs, seconds=call.left(), request_id=call.request_id
        )
        call.version = str(answer.served.version)
        if wanted != JSON:
            about = {"x-model-version": call.version}
            return Response(to_npz(answer.outputs), headers=about, media_type=wanted)
        info = {"name": name, "version": answer.served.version, "alias": alias}
        return Response(
            to_json(answer.served.predictor.spec, answer.outputs, info), media_type=JSON
        )

    return [
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", shown),
        Route("/v1/models/{name}", _named("/v1/models/{name}", described)),
        Route(PREDICT, _named(PREDICT, predicted), methods=["POST"]),
        *(_of_plugin(service, alias, transform) for transform in transforms),
    ]


def direct_routes(found: Sequence[Route], models: Sequence[str]) -> dict[str, Direct]:
    """Return the endpoints that are posted to, by the paths of the models that are served."""
    posts = [route for route in found if "POST" in (route.methods or ())]
    return {
        route.path.format(name=name): (route.endpoint, {"name": name})
        for route in posts
        for name in models
    }


def _of_plugin(service: Service, alias: str, transform: Transform[Any, Any]) -> Route:
    name = transform.model

    async def answered(request: Request) -> Response:
        call = call_of(request.scope)
        service.served(name)
        call.model = name
        body = await request.body()
        served = service.served(name)
        call.version = str(served.version)
        try:
            asked = transform.request.model_validate_json(body)
        except ValidationError as error:
            raise invalid(error) from error
        try:
            inputs = transform.to_tensors(asked, served.predictor.spec)
        except ValueError as error:
            raise Problem(422, "invalid-input", str(error)) from error
        answer = await service.predict(
            name, inputs, seconds=call.left(), request_id=call.request_id
        )
        call.version = str(answer.served.version)
        info = ModelInfo(name=name, version=answer.served.version, alias=alias)
        return _json(transform.to_response(asked, answer.outputs, info))

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
