"""Runs small work at once and large work in threads, so that no request blocks others.

Work in threads must release the interpreter often: no call into C takes more than milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["SMALL_BODY", "run"]

SMALL_BODY = 32 * 1024
"""Bytes of a body that are read in milliseconds, whatever its content."""

T = TypeVar("T")
# Not the event loop's threads, which read the registry.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="codec")


async def run(function: Callable[[], T], *, small: bool, seconds: float) -> T:
    """Return a function's result; one that is small takes milliseconds at most.

    Raises:
        TimeoutError: The deadline passed.
    """
    if small:
        return function()
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().run_in_executor(_THREADS, function)
