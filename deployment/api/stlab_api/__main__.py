"""The command ``stlab-api``."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import uvicorn
from pydantic import ValidationError

from exporter.errors import UsageError
from stlab_api.app import create_app
from stlab_api.logs import set_up
from stlab_api.settings import Settings

if TYPE_CHECKING:
    from socket import socket
    from types import FrameType

    from stlab_api.service import Service

__all__ = ["main"]


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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self._service.draining:
            super().handle_exit(sig, frame)
            return
        self._service.draining = True
        stop = super().handle_exit
        self._loop.call_soon_threadsafe(
            lambda loop: loop.call_later(self._drain_seconds, stop, sig, None), self._loop
        )


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 where a setting makes no sense."""
    try:
        settings = Settings()
        _ = settings.models
    except (ValidationError, UsageError) as error:
        print(f"stlab-api: {error}", file=sys.stderr)  # noqa: T201
        return 2
    set_up(settings.log_level, settings.log_format)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=int(settings.stop_seconds) or 1,
    )
    logging.getLogger("stlab_api").info(
        "serving %s by '%s' in backend '%s'",
        ", ".join(settings.models),
        settings.alias,
        settings.backend,
    )
    server = _Server(config, app.state.service, settings.drain_seconds)
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
