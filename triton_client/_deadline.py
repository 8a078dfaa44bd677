"""The point in time that bounds a call with all its attempts and parts, and the usual bounds."""

from __future__ import annotations

import math
from time import monotonic
from typing import Final

__all__ = ["LOAD_SECONDS", "POLL_SECONDS", "PROBE_SECONDS", "TIMEOUT_SECONDS", "Deadline"]

TIMEOUT_SECONDS: Final = 60.0
LOAD_SECONDS: Final = 600.0
PROBE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.1


class Deadline:
    """A point in time, counted from its making.

    Args:
        seconds: How far away it is; ``None`` and infinity mean never.

    Raises:
        ValueError: ``seconds`` is not positive.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise ValueError(f"a deadline is a positive number of seconds, not {seconds}")
        self.seconds = None if seconds is None or math.isinf(seconds) else seconds
        self._end = None if self.seconds is None else monotonic() + self.seconds

    def remaining(self) -> float | None:
        """Return the seconds that are left, 0 when it has passed, ``None`` where it never does."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def within(self, seconds: float) -> float:
        """Return ``seconds``, or what is left where that is less; never quite 0."""
        left = self.remaining()
        return seconds if left is None else max(1e-3, min(seconds, left))
