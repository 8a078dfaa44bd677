"""The command ``stlab-dashboard``."""

from __future__ import annotations

import logging
import sys
from types import FrameType

import uvicorn

from exporter.text.terminal import SafeFormatter
from stlab_dashboard.app import create_app
from stlab_dashboard.settings import Settings
from stlab_web.application import starting

__all__ = ["main"]


class _Server(uvicorn.Server):
    """Ends with 0 on SIGTERM and SIGINT, where uvicorn raises the signal again at the end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 for a setting or a plug-in that is not valid."""
    with starting("stlab-dashboard"):
        settings = Settings()
        app = create_app(settings)
    print(f"The dashboard is at http://{settings.host}:{settings.port}", file=sys.stderr)  # noqa: T201
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            log_config=None,
            server_header=False,
            proxy_headers=False,  # the application has them behind its own layers
            timeout_graceful_shutdown=3,
        )
    )
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
