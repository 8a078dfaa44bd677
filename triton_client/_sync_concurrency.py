"""What the synchronous client does with threads; ``_aio_concurrency`` has the same names."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from os import getpid
from threading import Lock
from typing import TypeVar

__all__ = ["Items", "Later", "TimedLock", "encode_while_waiting", "in_order", "iterate"]

A = TypeVar("A")
B = TypeVar("B")

Items = Iterable[A]
Later = Callable[[], B]
"""Work that begins when it is called."""

iterate = iter


encode_while_waiting = iter
"""Encodes each request when it is sent: the caller waits, so its arrays stay as they are."""


def in_order(prepare: Callable[[A], Later[B]], items: Items[A], concurrency: int) -> Iterator[B]:
    """Yield ``prepare(item)()`` for every item, in order, from ``concurrency`` threads.

    An item is prepared before the next one is taken, which may be the same object with other
    values. At most ``concurrency`` items are taken ahead of the results. An exception is raised at
    its item's turn. Leaving early waits for what has started and drops the rest.
    """
    pool = ThreadPoolExecutor(concurrency, "triton-client")
    pending: deque[Future[B]] = deque()
    try:
        for item in items:
            pending.append(_submitted(pool, prepare, item))
            if len(pending) >= concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, prepare: Callable[[A], Later[B]], item: A) -> Future[B]:
    try:
        return pool.submit(prepare(item))
    except Exception as error:  # noqa: BLE001 - raised at its turn
        failed: Future[B] = Future()
        failed.set_exception(error)
        return failed


class TimedLock:
    """A lock that is waited for with a time limit."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, Lock] = {}

    @contextmanager
    def held(self, seconds: float | None) -> Iterator[bool]:
        """Hold the lock; yields ``False`` where it was not free within ``seconds``."""
        # One for each process: a child may inherit its parent's while it is held.
        lock = self._locks.setdefault(getpid(), Lock())
        acquired = lock.acquire(timeout=-1 if seconds is None else seconds)
        try:
            yield acquired
        finally:
            if acquired:
                lock.release()
