"""What the asyncio client does with tasks; ``_sync_concurrency`` has the same names."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

__all__ = ["Items", "Later", "TimedLock", "encode_while_waiting", "in_order", "iterate"]

A = TypeVar("A")
B = TypeVar("B")

Items = Iterable[A] | AsyncIterable[A]
Later = Callable[[], Awaitable[B]]
"""Work that begins when it is called and awaited."""

encode_while_waiting = list
"""Encodes requests at once: another task may change the caller's arrays before its turn."""


async def in_order(
    prepare: Callable[[A], Later[B]], items: Items[A], concurrency: int
) -> AsyncIterator[B]:
    """Yield ``await prepare(item)()`` for every item, in order, from ``concurrency`` tasks.

    As that of threads; leaving early cancels what has started.
    """
    pending: deque[asyncio.Future[B]] = deque()
    try:
        async for item in iterate(items):
            pending.append(_started(prepare, item))
            if len(pending) >= concurrency:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _started(prepare: Callable[[A], Later[B]], item: A) -> asyncio.Future[B]:
    try:
        return asyncio.ensure_future(prepare(item)())
    except Exception as error:  # noqa: BLE001 - raised at its turn
        failed: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


async def iterate(items: Items[A]) -> AsyncIterator[A]:
    """Yield the items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class TimedLock:
    """A lock that is waited for with a time limit."""

    __slots__ = ("_lock", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def held(self, seconds: float | None) -> AsyncIterator[bool]:
        """Hold the lock; yields ``False`` where it was not free within ``seconds``."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        lock, acquired = self._lock, False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                acquired = await lock.acquire()
        try:
            yield acquired
        finally:
            if acquired:
                lock.release()
