"""How a web application reports that it cannot start."""

from __future__ import annotations

import sys

from exporter.text.redaction import redact
from exporter.text.terminal import block

__all__ = ["refuse_to_start"]


def refuse_to_start(program: str, error: Exception) -> int:
    """Print an error and its hint on stderr, and return the exit code for a wrong setting."""
    text = "\n".join(filter(None, (f"{program}: {error}", getattr(error, "hint", ""))))
    print(block(redact(text)), file=sys.stderr)  # noqa: T201
    return 2
