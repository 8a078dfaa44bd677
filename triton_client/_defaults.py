"""What holds where a caller gives nothing: times in seconds, and the size of an answer."""

from __future__ import annotations

from typing import Final

__all__ = [
    "LOAD_SECONDS",
    "MAX_RESPONSE_BYTES",
    "POLL_SECONDS",
    "PROBE_SECONDS",
    "TIMEOUT_SECONDS",
]

TIMEOUT_SECONDS: Final = 60.0
LOAD_SECONDS: Final = 600.0
PROBE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.1
MAX_RESPONSE_BYTES: Final = 512 << 20
