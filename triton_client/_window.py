"""A function over many items, a few at a time, with the results in the items' order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["aio_in_order", "aio_items", "in_order"]

A = TypeVar("A")
B = TypeVar("B")


def in_order(
    prepare: Callable[[A], Callable[[], B]], items: Iterable[A], concurrency: int
) -> Iterator[B]:
    """Yield ``prepare(item)()`` for every item, in order, from ``concurrency`` threads.

    An item is prepared before the next one is taken, which may be the same object with other
    values. No more than ``concurrency`` items are taken before their results are. What raises,
    raises at its item's turn; leaving early waits for what has started and drops the rest.
    """
    with ThreadPoolExecutor(concurrency, "triton-client") as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(_submitted(pool, prepare, item))
                if len(pending) >= concurrency:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


async def aio_in_order(
    prepare: Callable[[A], Awaitable[B]],
    items: Iterable[A] | AsyncIterable[A],
    concurrency: int,
) -> AsyncIterator[B]:
    """Yield ``await prepare(item)`` for every item, in order, from ``concurrency`` tasks.

    As :func:`in_order`; leaving early cancels what has started.
    """
    pending: deque[asyncio.Future[B]] = deque()
    try:
        async for item in aio_items(items):
            pending.append(_started(prepare, item))
            if len(pending) >= concurrency:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _submitted(
    pool: ThreadPoolExecutor, prepare: Callable[[A], Callable[[], B]], item: A
) -> Future[B]:
    try:
        return pool.submit(prepare(item))
    except Exception as error:  # noqa: BLE001 - raised at its turn
        failed: Future[B] = Future()
        failed.set_exception(error)
        return failed


def _started(prepare: Callable[[A], Awaitable[B]], item: A) -> asyncio.Future[B]:
    try:
        return asyncio.ensure_future(prepare(item))
    except Exception as error:  # noqa: BLE001 - raised at its turn
        failed: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


async def aio_items(items: Iterable[A] | AsyncIterable[A]) -> AsyncIterator[A]:
    """Yield the items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
