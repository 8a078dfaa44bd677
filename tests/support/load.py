"""Clients that call a served model in bursts, in a process of their own.

Run as ``python load.py URL MODEL IN_FLIGHT OUT``: calls until its standard input ends, and then
writes when each call was sent and what factor came back; NaN where it failed or mixed answers.

The pauses between bursts are short, and leave the machine to what is tested.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triton_client import AsyncTritonClient

_PAUSE = 0.02


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        sent: When each call was sent, on the monotonic clock, in seconds.
        factors: What the model multiplied by; NaN for a call that failed.
        problems: The first failures in words.
    """

    sent: np.ndarray
    factors: np.ndarray
    problems: list[str]

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.sent) / float(np.ptp(self.sent))

    def between(self, begin: float, end: float) -> set[float]:
        """The factors of the calls that were sent in a stretch of time."""
        return set(self.factors[(self.sent > begin) & (self.sent < end)].tolist())


@contextmanager
def under_load(url: str, model: str, out: Path, in_flight: int = 32) -> Iterator[list[Load]]:
    """Ask a model in the background; the list holds the load once it is over."""
    process = subprocess.Popen(
        [sys.executable, __file__, url, model, str(in_flight), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    loads: list[Load] = []
    try:
        assert process.stdout.readline() == b"asking\n"
        yield loads
        process.communicate(timeout=60)
        assert process.returncode == 0
        with np.load(out) as found:
            loads.append(Load(found["sent"], found["factors"], list(map(str, found["problems"]))))
    finally:
        process.kill()
        process.communicate()


async def ask(url: str, name: str, in_flight: int, out: str) -> None:
    x = np.linspace(1, 2, 6, dtype=np.float32)[None]
    sent: list[float] = []
    factors: list[float] = []
    problems: list[str] = []
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    async with AsyncTritonClient(url) as client:
        model = await client.model(name)

        async def one() -> None:
            began = time.monotonic()
            try:
                answer = (await model.infer({"x": x}, deadline=20))["y"]
                factor = float(answer[0, 0])
                if not np.array_equal(answer, x * np.float32(factor)):
                    factor = np.nan
                    problems.append(f"mixed: {answer}")
            except Exception as error:  # noqa: BLE001 - whatever a client would see
                factor = np.nan
                problems.append(f"{type(error).__name__}: {error}")
            sent.append(began)
            factors.append(factor)

        print("asking", flush=True)  # noqa: T201
        while not over.is_set():
            await asyncio.gather(*(one() for _ in range(in_flight)))
            await asyncio.sleep(_PAUSE)
    np.savez(out, sent=sent, factors=factors, problems=np.array(problems[:20], dtype=str))


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
