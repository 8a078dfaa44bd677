"""The command ``stlab-api``."""

from __future__ import annotations

import logging
import sys

from stlab_api.app import create_app
from stlab_api.logs import set_up
from stlab_api.server import serve
from stlab_api.settings import Settings
from stlab_web.application import starting

__all__ = ["main"]


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 if a setting is invalid."""
    with starting("stlab-api"):
        settings = Settings()
        models = ", ".join(settings.models)
        set_up(settings.log_level, settings.log_format)
        app = create_app(settings)
    logging.getLogger("stlab_api").info(
        "serving %s by '%s' in backend '%s'", models, settings.alias, settings.backend
    )
    return serve(settings, app)


if __name__ == "__main__":
    sys.exit(main())
