"""The times, in seconds, that hold where a caller gives none."""

from __future__ import annotations

from typing import Final

__all__ = ["LOAD_SECONDS", "POLL_SECONDS", "PROBE_SECONDS", "TIMEOUT_SECONDS"]

TIMEOUT_SECONDS: Final = 60.0
LOAD_SECONDS: Final = 600.0
PROBE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.1
