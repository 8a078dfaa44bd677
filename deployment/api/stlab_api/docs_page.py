"""The page ``/docs``: Swagger UI, with files from a package instead of the internet."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["DOCS_PATHS", "docs_routes"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{root}/docs/swagger-ui-bundle.js"></script>
<script src="{root}/docs/start.js"></script>
</body>
</html>
"""
_START = """"use strict";
SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
DOCS_PATHS = frozenset({"/docs", "/docs/start.js", *(f"/docs/{name}" for name in _FILES)})
"""The paths of the page and its files."""


def docs_routes(title: str) -> list[Route]:
    """Return the routes of the page and its files."""

    async def page(request: Request) -> Response:
        root = escape(request.scope.get("root_path", ""))
        return HTMLResponse(
            _PAGE.format(title=escape(title), root=root),
            headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"},
        )

    contents = {name: files("fastapi_offline").joinpath("static", name).read_bytes()
                for name in _FILES}  # fmt: skip
    parts = [_file("/docs/start.js", _START.encode(), "text/javascript")]
    parts += [_file(f"/docs/{name}", contents[name], kind) for name, kind in _FILES.items()]
    return [Route("/docs", page), *parts]


def _file(path: str, content: bytes, kind: str) -> Route:
    headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}

    async def sent(_: Request) -> Response:
        return Response(content, media_type=kind, headers=headers)

    return Route(path, sent)
