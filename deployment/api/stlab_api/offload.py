"""Runs what is small at once, and what is large in threads, so that no request holds up others.

What runs there gives way often: no single call into C takes more than some milliseconds.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SMALL_BODY", "run"]

SMALL_BODY = 32 * 1024
"""The bytes of a body that are read in milliseconds, whatever they are."""

T = TypeVar("T")
# Threads of their own: those of the loop look at the registry.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="codec")


async def run(function: Callable[[], T], *, small: bool, seconds: float) -> T:
    """Return what a function returns.

    Args:
        function: What to run.
        small: Whether it takes milliseconds at most.
        seconds: The deadline.

    Raises:
        TimeoutError: The deadline passed.
    """
    if small:
        return function()
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().run_in_executor(_THREADS, function)
