"""Time the steps of a command, and report progress to a listener."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Listener", "Steps"]


class Listener(Protocol):
    """Receives progress events."""

    def begin(self, step: str) -> None:
        """Receive that a step begins."""

    def say(self, step: str, text: str) -> None:
        """Receive a detail of a step."""

    def end(self, step: str, seconds: float, *, failed: bool) -> None:
        """Receive that a step ended."""


class Steps:
    """The steps of one command, with their seconds, reported to a listener if there is one."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._begin = time.perf_counter()
        self._current = ""
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time one step."""
        self.begin(step)
        begin = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            self.end(step, time.perf_counter() - begin, failed=failed)

    def begin(self, step: str) -> None:
        """Begin a step that the caller times."""
        self._current = step
        if self._listener:
            self._listener.begin(step)

    def end(self, step: str, seconds: float, *, failed: bool) -> None:
        """End a step that the caller has timed."""
        self._current = ""
        self._seconds[step] = self._seconds.get(step, 0.0) + seconds
        if self._listener:
            self._listener.end(step, seconds, failed=failed)

    def say(self, text: str) -> None:
        """Report a detail of the current step."""
        if self._listener:
            self._listener.say(self._current, text)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by step, and ``total`` so far."""
        by_step = {step: round(seconds, 3) for step, seconds in self._seconds.items()}
        return {**by_step, "total": round(time.perf_counter() - self._begin, 3)}
