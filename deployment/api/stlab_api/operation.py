"""What every request passes: an id, limits, who may ask, a deadline, metrics and one line of log.

One ASGI layer, since each layer of a framework costs a request as much as a small model does. A
request takes one of the service's places once its body is whole, and gives it back when its answer
begins: neither slow senders nor slow readers keep others out.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request

from stlab_api.docs_page import DOCS_PATHS
from stlab_api.logs import access
from stlab_api.problems import Problem, problem_of
from stlab_api.request_body import SMALL, BufferBudget, read_body, replayed, too_large

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stlab_api.auth import Guard
    from stlab_api.metrics import Metrics
    from stlab_api.service import Service
    from stlab_api.settings import Settings

__all__ = ["QUIET", "Call", "Direct", "Operation", "call_of"]

Direct = tuple["Callable[[Request], Awaitable[Response]]", "Mapping[str, str]"]
"""An endpoint with its path's parameters."""

_KEY = "stlab"
_ID = re.compile(r"[\x21-\x7e]{1,128}")
# Asked by machines all the time: neither limited nor guarded nor logged.
QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})
_OPEN = DOCS_PATHS | {"/openapi.json"}
_METHODS = frozenset({"GET", "HEAD", "POST"})
_GONE = 499  # as nginx counts who went before the answer


@dataclass(slots=True)
class Call:
    """One request, as the layers know it.

    Attributes:
        request_id: The caller's ``X-Request-ID``, or one of ours.
        seconds: What is left of the deadline when the request came.
        route: The route's template; empty where none fits.
        model: The model that was asked.
        version: The version that answered.
        body: The body of a POST, whole and unzipped.
        held: The bytes that it holds of the budget of all connections.
        placed: Whether it has one of the service's places.
        status: The answer's status; 0 until it begins.
    """

    request_id: str
    seconds: float
    route: str = ""
    model: str = ""
    version: str = ""
    body: bytes = b""
    held: int = 0
    placed: bool = False
    status: int = 0
    began: float = field(default_factory=perf_counter)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - (perf_counter() - self.began)


def call_of(scope: Scope) -> Call:
    """Return what the layers know of a request."""
    call: Call = scope[_KEY]
    return call


class Operation:
    """The layer.

    Args:
        app: What answers.
        settings: The limits.
        service: Knows whether it is about to stop.
        metrics: Where requests are counted.
        guard: Who may ask; None for everybody.
        direct: Endpoints of posts by path, which are called past the layers of the framework.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        service: Service,
        metrics: Metrics,
        guard: Guard | None,
        direct: Mapping[str, Direct] | None = None,
    ) -> None:
        self._app = app
        self._direct = direct or {}
        self._settings = settings
        self._service = service
        self._metrics = metrics
        self._guard = guard
        self._under_way = 0
        self._buffers = BufferBudget(settings.max_buffered_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        def header(name: bytes) -> str:
            return bytes(headers.get(name, b"")).decode("latin-1")

        given = header(b"x-request-id")
        call = Call(
            given if _ID.fullmatch(given) else secrets.token_hex(8), self._settings.timeout_seconds
        )
        scope[_KEY] = call

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                message["headers"] = [
                    *message["headers"], (b"x-request-id", call.request_id.encode()),
                    *([(b"connection", b"close")] if self._service.draining else []),
                ]  # fmt: skip
                self._leave(call)
            if len(message.get("body", b"")) > SMALL:
                await self._send_slowly(message, send)
            else:
                await send(message)

        try:
            if _path(scope) not in QUIET:
                receive = await self._enter(scope, receive, header, call)
            await self._respond(scope, receive, answer)
        except ClientDisconnect:
            call.status = _GONE
        except Exception as error:
            if call.status:
                raise
            await self._refused(error, call, scope, answer)
        finally:
            self._leave(call)
            self._buffers.give(call.held)
            self._tell(scope, call, call.status or 500)

    async def _enter(
        self, scope: Scope, receive: Receive, header: Callable[[bytes], str], call: Call
    ) -> Receive:
        """Read what there is of a body, then take a place."""
        await self._admit(_path(scope), header, call)
        if scope["method"] == "POST":
            call.body, call.held = await read_body(
                receive,
                header,
                seconds=call.left(),
                limit=self._settings.max_body_bytes,
                budget=self._buffers,
            )
            receive = replayed(call.body, receive)
        self._check_places()
        call.placed = True
        self._under_way += 1
        self._metrics.in_flight.set(self._under_way)
        return receive

    def _leave(self, call: Call) -> None:
        if call.placed:
            call.placed = False
            self._under_way -= 1
            self._metrics.in_flight.set(self._under_way)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = self._direct.get(_path(scope)) if scope["method"] == "POST" else None
        if direct is None:
            await self._app(scope, receive, send)
            return
        endpoint, scope["path_params"] = direct
        response = await endpoint(Request(scope, receive))
        held = self._buffers.take(max(0, len(response.body) - SMALL))
        try:
            await response(scope, receive, send)
        finally:
            self._buffers.give(held)

    async def _send_slowly(self, message: Message, send: Send) -> None:
        """Hand a large answer over as the caller takes it, for so long and no longer."""
        body = memoryview(message["body"])
        more = message.get("more_body", False)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.send_seconds):
                for start in range(0, len(body), SMALL):
                    part = bytes(body[start : start + SMALL])
                    last = start + SMALL >= len(body)
                    await send({**message, "body": part, "more_body": more or not last})

    def _check_places(self) -> None:
        if self._under_way >= self._settings.max_concurrency:
            self._metrics.refused.inc()
            raise Problem(
                503,
                "overloaded",
                f"{self._settings.max_concurrency} requests are under way; try again in a second",
                headers={"Retry-After": "1"},
            )

    async def _admit(self, path: str, header: Callable[[bytes], str], call: Call) -> None:
        self._check_places()
        if self._guard is not None and path not in _OPEN:
            await self._guard(header)
        if wanted := header(b"x-timeout-seconds"):
            call.seconds = min(call.seconds, _seconds(wanted))
        length = header(b"content-length")
        if length.isdigit() and int(length) > self._settings.max_body_bytes:
            raise too_large(self._settings.max_body_bytes)

    async def _refused(self, error: Exception, call: Call, scope: Scope, send: Send) -> None:
        problem = problem_of(error)
        if problem.status == 500:
            access.error(
                "a request failed",
                exc_info=error,
                extra={"fields": {"request_id": call.request_id}},
            )
        await problem.response(call.request_id)(scope, _nothing, send)

    def _tell(self, scope: Scope, call: Call, status: int) -> None:
        seconds = perf_counter() - call.began
        path = _path(scope)
        route = call.route or (path if path in _OPEN else "unknown")
        if path in QUIET:
            return
        method = scope["method"] if route != "unknown" and scope["method"] in _METHODS else "other"
        self._metrics.answered(method, route, status, call.model, call.version, seconds)
        if access.isEnabledFor(20):
            access.info(
                "%s %s %d",
                scope["method"],
                route,
                status,
                extra={
                    "fields": {
                        "request_id": call.request_id,
                        "seconds": round(seconds, 6),
                        **({"model": call.model, "version": call.version} if call.model else {}),
                    }
                },
            )


def _path(scope: Scope) -> str:
    """Return a request's path below the prefix of a proxy."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise Problem(400, "malformed", "X-Timeout-Seconds must be a number above 0")
    return seconds


def as_problem(error: HTTPException) -> Problem:
    """Return a framework's own error, such as 404 and 405, as a problem."""
    words = {404: "no-such-path", 405: "no-such-method"}
    return Problem(
        error.status_code,
        words.get(error.status_code, "refused"),
        str(error.detail),
        headers=error.headers,
    )


async def _nothing() -> Any:
    return {"type": "http.disconnect"}
