"""Batches requests: those that arrive during a run form the next run.

An idle model runs at once, so no request waits for others. Under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from exporter.arrays import Arrays

__all__ = ["Batcher"]


@dataclass(slots=True)
class _Waiting:
    inputs: Arrays
    rows: int
    shape: tuple[Any, ...]
    answer: asyncio.Future[Arrays]


class Batcher:
    """Runs a function on batches, one at a time, in its own thread.

    A run has `max_rows` at most, or one request if they are 0; `observe` gets the rows of each.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        max_rows: int,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._most = max_rows
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def submit(self, inputs: Arrays) -> Arrays:
        """Return the outputs for inputs, which have equally many rows if rows are batched."""
        if not self._most:
            return await self._enqueue(inputs, 0, ())
        rows = len(next(iter(inputs.values())))
        shape = tuple(sorted((n, a.shape[1:], a.dtype.char) for n, a in inputs.items()))
        if rows <= self._most:
            return await self._enqueue(inputs, rows, shape)
        parts = await asyncio.gather(
            *(
                self._enqueue(
                    {n: a[start : start + self._most] for n, a in inputs.items()},
                    min(self._most, rows - start),
                    shape,
                )
                for start in range(0, rows, self._most)
            )
        )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def close(self) -> None:
        """Wait for the run under way."""
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _enqueue(self, inputs: Arrays, rows: int, shape: tuple[Any, ...]) -> asyncio.Future[Arrays]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(inputs, rows, shape, loop.create_future())
        self._waiting.append(waiting)
        if not self._running:
            self._running = True
            loop.call_soon(self._begin, loop)  # with all others of this turn of the loop
        return waiting.answer

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        while batch := self._next():
            try:
                run = loop.run_in_executor(self._thread, self._answered, batch)
            except RuntimeError as error:  # it was closed
                for waiting in batch:
                    waiting.answer.set_exception(error)
                continue
            run.add_done_callback(partial(self._deliver, loop, batch))
            return
        self._running = False

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            if first.answer.done():  # cancelled
                self._waiting.popleft()
                continue
            if batch and (
                not self._most or first.shape != batch[0].shape or rows + first.rows > self._most
            ):
                break
            batch.append(self._waiting.popleft())
            rows += first.rows
        return batch

    def _answered(self, batch: list[_Waiting]) -> list[Arrays]:
        if len(batch) == 1:
            self._observe(max(1, batch[0].rows))
            return [self._run(batch[0].inputs)]
        names = batch[0].inputs
        outputs = self._run({n: np.concatenate([w.inputs[n] for w in batch]) for n in names})
        self._observe(sum(waiting.rows for waiting in batch))
        answers: list[Arrays] = []
        start = 0
        for waiting in batch:
            stop = start + waiting.rows
            answers.append({name: array[start:stop] for name, array in outputs.items()})
            start = stop
        return answers

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        done: asyncio.Future[list[Arrays]],
    ) -> None:
        self._begin(loop)
        error = done.exception()
        for place, waiting in enumerate(batch):
            if waiting.answer.done():
                continue
            if error is not None:
                waiting.answer.set_exception(error)
            else:
                waiting.answer.set_result(done.result()[place])
