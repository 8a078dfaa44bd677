"""Requests that wait are put together; nothing else waits for anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from stlab_api.batching import Batcher
from tests.unit.api.fakes import finished

Array = np.ndarray[Any, Any]
SECONDS = 10.0


class Gated:
    """A model that adds one, and whose first runs can be held.

    Attributes:
        runs: The inputs of every run, in their order.
    """

    def __init__(self, held: int = 0) -> None:
        self.runs: list[Mapping[str, Array]] = []
        self.failing: set[int] = set()
        self.begun = threading.Event()
        self._held = held
        self._open = threading.Event()

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.runs.append(inputs)
        number = len(self.runs)
        self.begun.set()
        if number <= self._held:
            assert self._open.wait(SECONDS)
        if number in self.failing:
            raise ValueError(f"run {number} failed")
        return {"y": next(iter(inputs.values())) + 1}

    @property
    def rows(self) -> list[int]:
        return [len(next(iter(inputs.values()))) for inputs in self.runs]

    async def under_way(self) -> None:
        """Return once a run has begun."""
        assert await asyncio.to_thread(self.begun.wait, SECONDS)

    def release(self) -> None:
        self._open.set()


@contextmanager
def held(runs: int = 1) -> Iterator[Gated]:
    model = Gated(runs)
    try:
        yield model
    finally:
        model.release()


def x(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)}


def ask(batcher: Batcher, inputs: Mapping[str, Array]) -> asyncio.Task[Mapping[str, Array]]:
    return asyncio.ensure_future(batcher.submit(inputs))


async def queued() -> None:
    """Let every task that was made run to where it waits."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_a_request_to_a_free_model_waits_for_no_other() -> None:
    async def run() -> None:
        model = Gated()
        batcher = Batcher(model, 32)
        for value in (1.0, 2.0):
            assert (await batcher.submit(x(value)))["y"].tolist() == [value + 1]
        assert model.rows == [1, 1]
        await batcher.close()

    finished(run())


def test_what_waits_is_put_together_and_cut_right() -> None:
    async def run() -> None:
        with held() as model:
            seen: list[int] = []
            batcher = Batcher(model, 8, seen.append)
            first = ask(batcher, x(0))
            await model.under_way()
            waiting = [ask(batcher, x(*range(10 * n, 10 * n + n))) for n in (2, 3, 4, 1)]
            await queued()
            model.release()
            assert (await first)["y"].tolist() == [1]
            for n, answer in zip((2, 3, 4, 1), await asyncio.gather(*waiting), strict=True):
                assert answer["y"].tolist() == [10 * n + i + 1 for i in range(n)]
            # 2 + 3 leave no room for 4; 4 + 1 go together. Nothing is overtaken.
            assert model.rows == [1, 5, 5]
            assert seen == [1, 5, 5]
            await batcher.close()

    finished(run())


def test_a_batch_is_filled_to_the_last_row_and_not_beyond() -> None:
    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 4)
            first = ask(batcher, x(0))
            await model.under_way()
            waiting = [ask(batcher, x(float(i))) for i in range(9)]
            await queued()
            model.release()
            await asyncio.gather(first, *waiting)
            assert model.rows == [1, 4, 4, 1]
            await batcher.close()

    finished(run())


def test_what_comes_at_once_is_run_at_once() -> None:
    async def run() -> None:
        model = Gated()
        batcher = Batcher(model, 8)
        answers = await asyncio.gather(*(batcher.submit(x(float(i))) for i in range(3)))
        assert [answer["y"].tolist() for answer in answers] == [[1], [2], [3]]
        assert model.rows == [3]
        await batcher.close()

    finished(run())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)),
        (np.zeros((1, 3), np.float32), np.zeros((1, 3, 1), np.float32)),
        (np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float64)),
    ],
    ids=["size", "axes", "dtype"],
)
def test_different_shapes_are_never_mixed(one: Array, other: Array) -> None:
    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 8)
            first = ask(batcher, {"x": one})
            await model.under_way()
            waiting = [ask(batcher, {"x": a}) for a in (one, one, other, other, one)]
            await queued()
            model.release()
            answers = await asyncio.gather(first, *waiting)
            wanted = [one, one, one, other, other, one]
            assert [a["y"].shape for a in answers] == [a.shape for a in wanted]
            assert [a["y"].dtype for a in answers] == [a.dtype for a in wanted]
            assert model.rows == [1, 2, 2, 1]
            await batcher.close()

    finished(run())


def test_inputs_in_another_order_are_told_apart_by_their_names() -> None:
    narrow, wide = np.zeros((1, 3), np.float32), np.zeros((1, 5), np.float32)

    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 8)
            first = ask(batcher, {"a": narrow, "b": wide})
            await model.under_way()
            waiting = [
                ask(batcher, {"a": narrow, "b": wide}),
                ask(batcher, {"b": narrow, "a": wide}),
            ]
            await queued()
            model.release()
            await asyncio.gather(first, *waiting)
            shapes = [{name: a.shape[1] for name, a in given.items()} for given in model.runs]
            assert shapes == [{"a": 3, "b": 5}, {"a": 3, "b": 5}, {"b": 3, "a": 5}]
            await batcher.close()

    finished(run())


def test_several_inputs_are_put_together_each_with_its_own() -> None:
    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 8)
            first = ask(batcher, {"a": np.array([0.0]), "b": np.array([0])})
            await model.under_way()
            waiting = [
                ask(batcher, {"a": np.array([1.0]), "b": np.array([10])}),
                ask(batcher, {"b": np.array([20, 30]), "a": np.array([2.0, 3.0])}),
            ]
            await queued()
            model.release()
            answers = await asyncio.gather(first, *waiting)
            given = {name: array.tolist() for name, array in model.runs[-1].items()}
            if len(model.runs) == 2:  # whether they go together is not promised
                assert given == {"a": [1.0, 2.0, 3.0], "b": [10, 20, 30]}
            assert answers[1]["y"].tolist() == [2.0]
            await batcher.close()

    finished(run())


def test_a_model_without_batches_runs_one_request_at_a_time() -> None:
    async def run() -> None:
        with held() as model:
            seen: list[int] = []
            batcher = Batcher(model, 0, seen.append)
            first = ask(batcher, x(1, 2))
            await model.under_way()
            waiting = [ask(batcher, x(*range(n))) for n in (3, 1, 50)]
            await queued()
            model.release()
            answers = await asyncio.gather(first, *waiting)
            assert [len(a["y"]) for a in answers] == [2, 3, 1, 50]
            assert model.rows == [2, 3, 1, 50]
            assert seen == [1, 1, 1, 1]
            await batcher.close()

    finished(run())


def test_one_run_is_under_way_at_a_time() -> None:
    async def run() -> None:
        with held(2) as model:
            batcher = Batcher(model, 1)
            waiting = [ask(batcher, x(float(i))) for i in range(4)]
            await model.under_way()
            await queued()
            assert len(model.runs) == 1
            model.release()
            await asyncio.gather(*waiting)
            assert model.rows == [1, 1, 1, 1]
            await batcher.close()

    finished(run())


def test_a_failing_run_fails_its_own_requests_only() -> None:
    async def run() -> None:
        with held() as model:
            model.failing = {2}
            batcher = Batcher(model, 2)
            first = ask(batcher, x(0))
            await model.under_way()
            waiting = [ask(batcher, x(float(i))) for i in range(1, 5)]
            await queued()
            model.release()
            answers = await asyncio.gather(first, *waiting, return_exceptions=True)
            assert [str(a) for a in answers[1:3]] == ["run 2 failed"] * 2
            assert all(isinstance(a, ValueError) for a in answers[1:3])
            assert [answers[i]["y"].tolist() for i in (0, 3, 4)] == [[1], [4], [5]]
            assert (await batcher.submit(x(9)))["y"].tolist() == [10]
            await batcher.close()

    finished(run())


def test_who_waits_no_more_is_left_out() -> None:
    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 8)
            first = ask(batcher, x(0))
            await model.under_way()
            waiting = [ask(batcher, x(float(i))) for i in range(1, 4)]
            await queued()
            waiting[1].cancel()
            await queued()
            model.release()
            assert (await first)["y"].tolist() == [1]
            assert (await waiting[0])["y"].tolist() == [2]
            assert (await waiting[2])["y"].tolist() == [4]
            assert waiting[1].cancelled()
            assert model.runs[1]["x"].tolist() == [1, 3]
            await batcher.close()

    finished(run())


def test_who_goes_while_it_is_run_disturbs_nobody() -> None:
    async def run() -> None:
        with held(2) as model:
            batcher = Batcher(model, 8)
            both = [ask(batcher, x(1)), ask(batcher, x(2))]
            await model.under_way()
            both[0].cancel()
            await queued()
            model.release()
            assert (await both[1])["y"].tolist() == [3]
            assert model.rows == [2]
            # The model is free again.
            assert (await batcher.submit(x(5)))["y"].tolist() == [6]
            await batcher.close()

    finished(run())


def test_a_deadline_that_passes_in_the_queue_costs_no_run() -> None:
    async def late(batcher: Batcher) -> None:
        async with asyncio.timeout(0.01):
            await batcher.submit(x(1))

    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 8)
            first = ask(batcher, x(0))
            await model.under_way()
            with pytest.raises(TimeoutError):
                await late(batcher)
            model.release()
            await first
            await batcher.close()
            assert model.rows == [1]

    finished(run())


@pytest.mark.parametrize("rows", [4, 5, 8, 11])
def test_more_rows_than_fit_are_split_and_joined_in_order(rows: int) -> None:
    async def run() -> None:
        model = Gated()
        batcher = Batcher(model, 4)
        answer = await batcher.submit(x(*range(rows)))
        assert answer["y"].tolist() == list(range(1, rows + 1))
        assert max(model.rows) <= 4
        assert sum(model.rows) == rows
        await batcher.close()

    finished(run())


def test_what_is_left_of_a_split_request_goes_with_others() -> None:
    async def run() -> None:
        model = Gated()
        batcher = Batcher(model, 4)
        answers = await asyncio.gather(batcher.submit(x(*range(6))), batcher.submit(x(7, 8)))
        assert [a["y"].tolist() for a in answers] == [[1, 2, 3, 4, 5, 6], [8, 9]]
        assert model.rows == [4, 4]
        await batcher.close()

    finished(run())


def test_a_split_request_fails_where_a_part_of_it_fails() -> None:
    async def run() -> None:
        model = Gated()
        model.failing = {2}
        batcher = Batcher(model, 2)
        with pytest.raises(ValueError, match="run 2 failed"):
            await batcher.submit(x(*range(6)))
        assert (await batcher.submit(x(1)))["y"].tolist() == [2]
        await batcher.close()

    finished(run())


def test_close_waits_for_the_run_under_way() -> None:
    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 4)
            first = ask(batcher, x(1))
            await model.under_way()
            closing = asyncio.ensure_future(batcher.close())
            done, _ = await asyncio.wait([closing], timeout=0.05)
            assert not done
            model.release()
            await closing
            assert (await first)["y"].tolist() == [2]

    finished(run())


def test_close_leaves_nobody_without_an_answer() -> None:
    async def run() -> None:
        with held() as model:
            batcher = Batcher(model, 1)
            first, second = ask(batcher, x(1)), ask(batcher, x(2))
            await model.under_way()
            closing = asyncio.ensure_future(batcher.close())
            await asyncio.wait([closing], timeout=0.05)  # it has told the thread to end
            model.release()
            await closing
            done, _ = await asyncio.wait([first, second], timeout=10)
            assert done == {first, second}
            assert first.result()["y"].tolist() == [2]
            # The other one was run, or was told that it will not be.
            assert second.exception() is not None or second.result()["y"].tolist() == [3]
            late = ask(batcher, x(3))
            assert await asyncio.wait([late], timeout=10) == ({late}, set())
            assert late.exception() is not None

    finished(run())
