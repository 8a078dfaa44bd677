"""ASGI middleware around every request: id, limits, authentication, deadline, metrics and log.

It is one layer because each layer costs a request time. A request takes one of the service's places
once its body is whole and gives it back when its answer begins, so that neither slow senders nor
slow readers keep others out.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stlab_api.auth import Authenticator
from stlab_api.context import SCOPE_KEY, SMALL, BufferBudget, RequestContext
from stlab_api.docs_page import DOCS_PATHS
from stlab_api.logs import access
from stlab_api.metrics import Metrics
from stlab_api.problems import Problem, problem_of
from stlab_api.request_body import read_body, too_large
from stlab_api.service import Service
from stlab_api.settings import Settings

__all__ = ["MONITORING_PATHS", "RequestMiddleware"]

MONITORING_PATHS = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Machines poll these all the time: they are neither limited nor authenticated nor logged."""

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_OPEN_PATHS = DOCS_PATHS | {"/openapi.json"}
_METHODS = frozenset({"GET", "HEAD", "POST"})
_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a caller that left before the answer


@dataclass
class RequestMiddleware:
    """The middleware; an authenticator of None lets everyone in."""

    app: ASGIApp
    settings: Settings
    service: Service
    metrics: Metrics
    authenticator: Authenticator | None
    _under_way: int = 0

    def __post_init__(self) -> None:
        self._budget = BufferBudget(self.settings.max_buffered_bytes)
        self.metrics.in_flight.set_function(lambda: self._under_way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = self._context(scope)
        path = _path_of(scope)
        # Endpoints answer HEAD as GET; the server leaves the body out.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        inner[SCOPE_KEY] = context

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = [
                    *message["headers"], (b"x-request-id", context.request_id.encode()),
                    *([(b"connection", b"close")] if self.service.draining else []),
                ]  # fmt: skip
                self._leave(context)
            if len(message.get("body", b"")) > SMALL:
                await self._send_slowly(message, send)
            else:
                await send(message)

        try:
            if path not in MONITORING_PATHS:
                await self._enter(scope, path, receive, context)
            await self.app(inner, receive, answer)
        except ClientDisconnect:
            context.status = _CLIENT_CLOSED_REQUEST
        except Exception as error:
            if context.status:
                raise
            await _response_to(error, context)(scope, receive, answer)
        finally:
            self._leave(context)
            context.release(context.held)
            if path not in MONITORING_PATHS:
                self._record(scope["method"], _template(inner, path, context), context)

    def _context(self, scope: Scope) -> RequestContext:
        headers = dict(scope["headers"])
        given = bytes(headers.get(b"x-request-id", b"")).decode("latin-1")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        return RequestContext(headers, request_id, self.settings.timeout_seconds, self._budget)

    async def _enter(
        self, scope: Scope, path: str, receive: Receive, context: RequestContext
    ) -> None:
        """Check the caller and the head, read the body, then take a place."""
        self._check_places()
        if self.authenticator is not None and path not in _OPEN_PATHS:
            await self.authenticator(context.header)
        if wanted := context.header(b"x-timeout-seconds"):
            context.seconds = min(context.seconds, _seconds(wanted))
        length = context.header(b"content-length")
        if length.isdigit() and int(length) > self.settings.max_body_bytes:
            raise too_large(self.settings.max_body_bytes)
        if scope["method"] == "POST":
            await read_body(receive, context, self.settings.max_body_bytes)
        self._check_places()
        context.has_place = True
        self._under_way += 1

    def _leave(self, context: RequestContext) -> None:
        if context.has_place:
            context.has_place = False
            self._under_way -= 1

    def _check_places(self) -> None:
        if self._under_way >= self.settings.max_concurrency:
            self.metrics.refused.inc()
            raise Problem(
                503,
                "overloaded",
                f"{self.settings.max_concurrency} requests are under way; try again in a second",
            )

    async def _send_slowly(self, message: Message, send: Send) -> None:
        """Send a large answer in pieces as the caller reads it, within a deadline."""
        body = memoryview(message["body"])
        more = message.get("more_body", False)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.send_seconds):
                for start in range(0, len(body), SMALL):
                    part = bytes(body[start : start + SMALL])
                    last = start + SMALL >= len(body)
                    await send({**message, "body": part, "more_body": more or not last})

    def _record(self, method: str, route: str, context: RequestContext) -> None:
        """Count a request and log it, by labels that no caller can make up."""
        seconds = context.seconds_taken()
        status = context.status or 500
        label = method if route != "unknown" and method in _METHODS else "other"
        self.metrics.answered(label, route, status, context.model, context.version, seconds)
        if access.isEnabledFor(20):
            model = {"model": context.model, "version": context.version} if context.model else {}
            fields = {"request_id": context.request_id, "seconds": round(seconds, 6), **model}
            access.info("%s %s %d", method, route, status, extra={"fields": fields})


def _response_to(error: Exception, context: RequestContext) -> Response:
    problem = problem_of(error)
    if problem.status == 500:
        fields = {"request_id": context.request_id}
        access.error("a request failed", exc_info=error, extra={"fields": fields})
    return problem.response(context.request_id)


def _path_of(scope: Scope) -> str:
    """Return a request's path below the prefix of a proxy."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _template(scope: Scope, path: str, context: RequestContext) -> str:
    """Return the template of the route that answered; the router also sets it for a 405."""
    route = scope.get("route")
    if route is not None and context.status != 405:
        return str(route.path)
    return path if path in _OPEN_PATHS else "unknown"


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise Problem(400, "malformed", "X-Timeout-Seconds must be a number above 0")
    return seconds
