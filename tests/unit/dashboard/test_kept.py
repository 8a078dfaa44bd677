"""What is kept for seconds: found once for everybody, in a thread, and anew where asked."""

from __future__ import annotations

import asyncio
import threading

import pytest

from stlab_dashboard.kept import Kept


class Finder:
    def __init__(self) -> None:
        self.found = 0

    def __call__(self) -> int:
        assert threading.current_thread() is not threading.main_thread()
        self.found += 1
        return self.found


def test_many_ask_and_one_looks() -> None:
    async def run() -> list[int]:
        kept, finder = Kept[int](60.0), Finder()
        return list(await asyncio.gather(*(kept.get("k", finder) for _ in range(20))))

    assert asyncio.run(run()) == [1] * 20


def test_old_values_and_those_asked_for_anew_are_found_again() -> None:
    async def run() -> None:
        kept, finder = Kept[int](0.0), Finder()
        assert [await kept.get("k", finder) for _ in range(2)] == [1, 2]
        kept = Kept[int](60.0)
        assert await kept.get("k", finder) == 3
        assert await kept.get("k", finder) == 3
        assert await kept.get("k", finder, anew=True) == 4

    asyncio.run(run())


def test_an_error_is_told_and_not_kept() -> None:
    def fails() -> int:
        raise ValueError("away")

    async def run() -> None:
        kept = Kept[int](60.0)
        with pytest.raises(ValueError, match="away"):
            await kept.get("k", fails)
        assert await kept.get("k", Finder()) == 1

    asyncio.run(run())


def test_only_so_many_are_kept() -> None:
    async def run() -> None:
        kept, finder = Kept[int](60.0, most=2), Finder()
        for key in "abc":
            await kept.get(key, finder)
        assert await kept.get("c", finder) == 3
        assert await kept.get("a", finder) == 4

    asyncio.run(run())
