"""The command ``stlab-api``."""

from __future__ import annotations

import logging
import sys

from pydantic import ValidationError

from exporter.errors import UsageError
from exporter.system.environment import load_dotenv
from exporter.system.standard_streams import secure_standard_streams
from stlab_api.app import create_app
from stlab_api.logs import set_up
from stlab_api.server import serve
from stlab_api.settings import Settings
from stlab_web.startup import refuse_to_start

__all__ = ["main"]


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 if a setting is invalid."""
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


if __name__ == "__main__":
    sys.exit(main())
