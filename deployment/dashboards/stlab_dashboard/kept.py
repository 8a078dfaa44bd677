"""Keeps what was slow to find for a few seconds, and finds it in a thread, once for everybody."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Kept"]

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key.

    Args:
        seconds: How long a value is kept.
        most: How many are; the oldest goes first.
    """

    def __init__(self, seconds: float, most: int = 16) -> None:
        self._seconds = seconds
        self._most = most
        self._values: dict[Hashable, tuple[float, T]] = {}
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, find: Callable[[], T], *, anew: bool = False) -> T:
        """Return the value of a key, found in a thread where it is not known or too old.

        Args:
            key: What it is kept under.
            find: Finds it; what it raises, this raises, and nothing is kept.
            anew: Whether to find it in any case.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        asked = time.monotonic()
        async with lock:
            known = self._values.get(key)
            # What somebody else found while we waited is new enough.
            if known is not None and known[0] > (asked if anew else asked - self._seconds):
                return known[1]
            value = await asyncio.to_thread(find)
            self._values.pop(key, None)
            self._values[key] = (time.monotonic(), value)
            while len(self._values) > self._most:
                oldest = next(iter(self._values))
                del self._values[oldest]
                self._locks.pop(oldest, None)
            return value
