"""Assembles the dashboard."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from nicegui import app as pages
from nicegui import ui
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from exporter.commands.status.result import StatusResult
from exporter.errors import StlabError
from exporter.text.redaction import redact
from stlab_dashboard import __version__
from stlab_dashboard.layout import PAGES, Layout
from stlab_dashboard.monitor import Monitor
from stlab_dashboard.plugins import PageContext, PagePlugin, draw_page, load_page_plugins
from stlab_dashboard.registry_page import registry_page, report_page
from stlab_dashboard.registry_reader import RegistryReader
from stlab_dashboard.server_page import server_page
from stlab_dashboard.settings import Settings
from stlab_dashboard.try_page import try_page
from stlab_web.application import add_front

__all__ = ["create_app"]

_STATIC = Path(__file__).parent / "static"
_LIVE = "/health/live"
# A browser loads nothing from other hosts, and no other site frames these pages.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
# A report is a static page: no script, no request.
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the ASGI application; one in a process, since NiceGUI keeps its pages by process.

    By default the settings are those of the environment.

    Raises:
        UsageError: A setting or a plug-in is not valid.
    """
    settings = settings or Settings()
    registry, monitor = RegistryReader(settings), Monitor(settings)
    plugins = load_page_plugins()
    layout = Layout(
        {**PAGES, **{plugin.path: plugin.title for plugin in plugins}},
        f"Registry {redact(settings.tracking_uri)} · repository {redact(settings.repository)}. "
        "This dashboard is read-only; models are promoted in CI.",
    )
    preload: list[asyncio.Task[StatusResult]] = []
    app = FastAPI(title="stlab dashboard", version=__version__, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guarded)
    add_front(app, settings, refuse=_refused, always={_LIVE})
    pages.add_static_files("/static", _STATIC)
    # In every page, so that it needs no address, whatever prefix the page has.
    style = (_STATIC / "dashboard.css").read_text(encoding="utf-8")
    ui.add_head_html(f"<style>{style}</style>", shared=True)

    @ui.page("/", response_timeout=60)
    async def registry_() -> None:
        with layout.page("Registry", "/"):
            await registry_page(registry)

    @ui.page("/try", response_timeout=60)
    async def try_(model: str = "", alias: str = "") -> None:
        with layout.page("Try it", "/try"):
            await try_page(settings, registry, model, alias)

    @ui.page("/server", response_timeout=60)
    async def server() -> None:
        with layout.page("Server", "/server"):
            await server_page(monitor, settings.refresh_seconds)

    @app.get("/report/{model}/{alias}.html")
    async def report_html(model: str, alias: str) -> Response:
        try:
            page = await registry.report(model, await registry.alias(model, alias))
        except StlabError as error:
            return PlainTextResponse(error.message, 404)
        return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY})

    @ui.page("/report/{model}/{alias}", response_timeout=60)
    async def report(model: str, alias: str) -> None:
        with layout.page(f"Report of {model}, {alias}", "/"):
            await report_page(registry, model, alias)

    for plugin in plugins:
        _add_plugin(plugin, layout, PageContext(settings, registry))

    @app.get(_LIVE)
    async def live() -> dict[str, str]:
        return {}

    @pages.on_startup
    async def start() -> None:
        # MLflow takes seconds to import: before the first visitor comes.
        preload.append(asyncio.create_task(registry.status()))

    ui.run_with(
        app,
        title="stlab",
        favicon=_STATIC / "favicon.svg",
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
    )
    return app


def _add_plugin(plugin: PagePlugin, layout: Layout, context: PageContext) -> None:
    @ui.page(plugin.path, response_timeout=60)
    async def page() -> None:
        with layout.page(plugin.title, plugin.path):
            await draw_page(plugin, context)


async def _refused(why: str, scope: Any, receive: Any, send: Any) -> None:
    hint = "Add the host to STLAB_DASHBOARD_ALLOWED_HOSTS if it is the dashboard's."
    answer = PlainTextResponse(f"Refused: {why}. {hint}\n", 403)
    await answer(scope, receive, send)


async def _guarded(request: Request, call_next: RequestResponseEndpoint) -> Response:
    answer = await call_next(request)
    answer.headers.setdefault("Content-Security-Policy", _POLICY)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer
