"""The page ``/docs``: FastAPI's Swagger UI, with files from a package instead of the internet."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from importlib.resources import files

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["DOCS_PATHS", "docs_routes"]

# The page's own script is allowed by its digest.
_POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
DOCS_PATHS = frozenset({"/docs", *(f"/docs/{name}" for name in _FILES)})
"""The paths of the page and its files."""


def docs_routes(title: str) -> list[Route]:
    """Return the routes of the page and its files."""
    script, style = (f"docs/{name}" for name in _FILES)
    page = get_swagger_ui_html(
        openapi_url="openapi.json",  # relative, as all addresses: a proxy may add a prefix
        title=title,
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"validatorUrl": None},
    )
    (own_script,) = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    digest = base64.b64encode(sha256(own_script).digest()).decode()
    policy = {
        "Content-Security-Policy": _POLICY.format(digest=digest),
        "Referrer-Policy": "no-referrer",
    }
    cached = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
    static = files("fastapi_offline") / "static"
    return [
        _route("/docs", bytes(page.body), "text/html", policy),
        *(
            _route(f"/docs/{name}", (static / name).read_bytes(), kind, cached)
            for name, kind in _FILES.items()
        ),
    ]


def _route(path: str, content: bytes, media_type: str, headers: dict[str, str]) -> Route:
    async def send(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return Route(path, send)
