"""The command ``stlab-api``."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import suppress
from socket import SHUT_RDWR, socket
from typing import TYPE_CHECKING, Any

import uvicorn
from pydantic import ValidationError

from exporter.errors import UsageError
from exporter.system.environment import load_dotenv
from exporter.system.standard_streams import secure_standard_streams
from stlab_api.app import create_app
from stlab_api.connections import bounded_connections
from stlab_api.logs import set_up
from stlab_api.settings import Settings
from stlab_web.startup import refuse_to_start

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from stlab_api.service import Service

__all__ = ["main", "serve"]


# How long those who have connected may take to ask, when nobody else is taken.
_LAST_SECONDS = 5.0


class _Server(uvicorn.Server):
    """Says that it is not ready before it stops to listen, so that nothing in flight is lost."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        # What was imported stays: looking through it again would hold up requests for 0.1 s.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            super().handle_exit(sig, frame)
        elif self._service.draining:
            self.force_exit = True  # asked twice
        else:
            self._service.draining = True
            self._loop.call_soon_threadsafe(self._stop_soon)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        await self._accept_the_rest(sockets or [])
        for server in self.servers:
            server.close()
        await self._hear_the_last()
        await super().shutdown(sockets)

    async def _hear_the_last(self) -> None:
        """Wait for the requests of those who have connected just before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await asyncio.sleep(0.1)
                while any(map(_is_silent, self.server_state.connections)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    async def _accept_the_rest(self, sockets: list[socket]) -> None:
        """Take the connections that wait in the kernel, which closing would reset."""
        loop = asyncio.get_running_loop()
        waiting = []
        for listener in sockets:
            with suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
            listener.shutdown(SHUT_RDWR)  # at once, where the loop's own closing comes later
        for connection in waiting:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def _stop_soon(self) -> None:
        asyncio.get_running_loop().call_later(self._drain_seconds, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def _is_silent(connection: Any) -> bool:
    """Whether nothing has been asked on a connection yet."""
    return connection.cycle is None


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 where a setting makes no sense."""
    secure_standard_streams()
    load_dotenv()
    try:
        settings = Settings()
        _ = settings.models
        set_up(settings.log_level, settings.log_format)
        app = create_app(settings)
    except (ValidationError, UsageError) as error:
        return refuse_to_start("stlab-api", error)
    logging.getLogger("stlab_api").info(
        "serving %s by '%s' in backend '%s'",
        ", ".join(settings.models),
        settings.alias,
        settings.backend,
    )
    return serve(settings, app)


def serve(settings: Settings, app: FastAPI) -> int:
    """Serve an application until SIGTERM or SIGINT; 3 where it cannot start."""
    # The thread that runs the model waits that long for the one that reads requests.
    sys.setswitchinterval(0.0005)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded_connections(settings),
        ws="none",
        proxy_headers=False,  # the application has them behind its own layers
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=int(settings.stop_seconds) or 1,
    )
    server = _Server(config, app.state.service, settings.drain_seconds)
    server.run(sockets=[config.bind_socket()])
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
