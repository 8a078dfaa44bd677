"""Calls the endpoints of POST requests without FastAPI's router and the layers around it.

Those cost a prediction more processor time than a small model; docs/api.md has the measurement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stlab_api.context import context_in, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi.routing import APIRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PostShortcut"]


class PostShortcut:
    """ASGI middleware, the innermost; the routes stay registered with FastAPI for all else.

    Args:
        app: The application.
        routes: Routes of POST requests; their endpoints take a context and return a response.
        models: The names that may stand for ``{name}`` in a route's path.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[APIRoute], models: Iterable[str]) -> None:
        self._app = app
        self._routes = {
            route.path.format(name=name): (route, {"name": name} if route.param_convertors else {})
            for route in routes
            for name in models
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        found = self._routes.get(path_of(scope)) if scope.get("method") == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], parameters = found
        response = await scope["route"].endpoint(context=context_in(scope), **parameters)
        await response(scope, receive, send)
