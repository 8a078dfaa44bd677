"""The command ``stlab-dashboard``."""

from __future__ import annotations

import logging
import sys

import uvicorn
from pydantic import ValidationError

from exporter.errors import UsageError
from exporter.system.environment import load_dotenv
from exporter.system.standard_streams import secure_standard_streams
from exporter.text.redaction import redact
from exporter.text.terminal import SafeFormatter, block
from stlab_dashboard.app import create_app
from stlab_dashboard.settings import Settings

__all__ = ["main"]


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 where a setting makes no sense."""
    secure_standard_streams()
    load_dotenv()
    try:
        settings = Settings()
        app = create_app(settings)
    except (ValidationError, UsageError, ValueError) as error:
        print(f"stlab-dashboard: {block(redact(str(error)))}", file=sys.stderr)  # noqa: T201
        return 2
    print(f"The dashboard is at http://{settings.host}:{settings.port}", file=sys.stderr)  # noqa: T201
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    server = uvicorn.Server(
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
