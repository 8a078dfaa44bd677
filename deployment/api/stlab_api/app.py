"""Puts the service together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stlab_api import __version__
from stlab_api.auth import make_authenticator
from stlab_api.context import context_in
from stlab_api.docs_page import docs_routes
from stlab_api.metrics import Metrics
from stlab_api.middleware import MONITORING_PATHS, RequestMiddleware
from stlab_api.openapi import OpenAPIDocument
from stlab_api.plugins import load_endpoint_plugins
from stlab_api.predictor import Backend
from stlab_api.problems import Problem
from stlab_api.routes import add_routes
from stlab_api.service import Service
from stlab_api.settings import Settings
from stlab_web.application import add_front

__all__ = ["create_app"]


def create_app(settings: Settings | None = None, backend: Backend | None = None) -> FastAPI:
    """Return the ASGI application; it loads its models when it starts.

    By default the settings are those of the environment, and the backend is what they say.
    """
    settings = settings or Settings()
    metrics = Metrics()
    service = Service(settings, backend or _backend(settings, metrics), metrics)
    plugins = load_endpoint_plugins(settings.models)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="stlab models",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _problem},
    )
    security = "tokens" if settings.oidc_issuer else "keys" if settings.api_keys else ""
    app.openapi = OpenAPIDocument(app, service, plugins, security)  # type: ignore[method-assign]
    add_routes(app, service, metrics, settings, plugins)
    app.router.routes.extend(docs_routes(app.title))
    # The middleware that is added last sees a request first.
    app.add_middleware(
        RequestMiddleware,
        settings=settings,
        service=service,
        metrics=metrics,
        authenticator=make_authenticator(settings),
    )
    add_front(app, settings, refuse=_refuse_host, always=MONITORING_PATHS)
    _trace(app)  # outermost: FastAPI looks for it there before it traces by itself
    app.state.service = service
    return app


def _backend(settings: Settings, metrics: Metrics) -> Backend:
    if settings.backend == "triton":
        from stlab_api.remote import TritonBackend

        return TritonBackend(settings.triton_url)
    from stlab_api.local import LocalBackend

    return LocalBackend(settings, metrics.ran)


async def _refuse_host(why: str, scope: Any, receive: Any, send: Any) -> None:
    await Problem(403, "refused-host", why).response()(scope, receive, send)


async def _problem(request: Request, error: Any) -> Response:
    """Return an error of the framework, such as 404 and 405, as a problem."""
    kind = {404: "no-such-path", 405: "no-such-method"}.get(error.status_code, "refused")
    problem = Problem(error.status_code, kind, str(error.detail), headers=error.headers)
    return problem.response(context_in(request.scope).request_id)


def _trace(app: FastAPI) -> None:
    """Trace requests if OpenTelemetry is configured; `triton_client` sends the trace to Triton."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    app.add_middleware(OpenTelemetryMiddleware, excluded_urls="health,metrics")
