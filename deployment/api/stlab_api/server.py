"""The server: uvicorn with bounded connections, which stops without losing a request."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from functools import partial
from socket import SHUT_RDWR, socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from stlab_api.connections import Connection, bounded_connections
from stlab_api.service import Service
from stlab_api.settings import Settings

__all__ = ["serve"]

# How long new connections may take to send their request while the server stops.
_LAST_SECONDS = 5.0


def serve(settings: Settings, app: FastAPI) -> int:
    """Serve an application until SIGTERM or SIGINT; 3 if it cannot start."""
    # The thread that runs the model waits that long for the one that reads requests.
    sys.setswitchinterval(0.0005)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded_connections(settings),
        ws="none",
        proxy_headers=False,  # the application has its own middleware for them
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=int(settings.stop_seconds) or 1,
    )
    server = _Server(config, app.state.service, settings.drain_seconds)
    server.run(sockets=[config.bind_socket()])
    return 0 if server.started else 3


class _Server(uvicorn.Server):
    """Reports that it is not ready before it stops to listen, so that no request is lost."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        # A full collection over all imported modules would delay requests by 0.1 s.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            super().handle_exit(sig, frame)
        elif self._service.draining:
            self.force_exit = True  # the second signal
        else:
            self._service.draining = True
            stop = partial(setattr, self, "should_exit", True)
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, stop)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        await self._accept_the_rest(sockets or [])
        for server in self.servers:
            server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await asyncio.sleep(0.1)
                while not all(map(_has_sent, self.server_state.connections)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _accept_the_rest(self, sockets: list[socket]) -> None:
        """Accept the connections that wait in the kernel, which closing would reset."""
        loop = asyncio.get_running_loop()
        kind: Any = self.config.http_protocol_class
        protocol = partial(kind, self.config, self.server_state, self.lifespan.state)
        waiting = []
        for listener in sockets:
            with suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
            listener.shutdown(SHUT_RDWR)  # at once; the event loop closes later
        for connection in waiting:
            connection.setblocking(False)
            await loop.connect_accepted_socket(protocol, connection)


def _has_sent(connection: Any) -> bool:
    return not isinstance(connection, Connection) or connection.requests > 0
