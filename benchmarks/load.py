"""Puts load on servers from outside of their processes, in turn, and says what came of it.

The load comes from wrk, one thread, over kept-alive loopback connections that each send the next
request when the last is answered. An answer other than 2xx, or none, is a failure of the benchmark.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processes import busy_seconds, cpu_seconds
from benchmarks.results import progress
from benchmarks.servers import Endpoint, ServerError, running

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = [
    "Load",
    "Loads",
    "add_options",
    "as_plain",
    "has_wrk",
    "median_load",
    "serve_and_measure",
    "spread",
]

_WARM_UP_SECONDS = 2
# Where others keep more of a core busy than this, it is measured again, so many times in all.
_QUIET, _ATTEMPTS = 0.2, 3
_SCRIPT = Path(__file__).with_name("post.lua")


def has_wrk() -> bool:
    """Tell whether the load generator is installed; say how to install it where it is not."""
    if shutil.which("wrk") is None:
        progress.print("wrk, the load generator, is missing: apt-get install wrk")
        return False
    return True


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured in one go.

    Attributes:
        requests_per_second: Answered.
        p50: Median latency in milliseconds.
        p99: 99th percentile of the latency in milliseconds.
        other_work: Cores that were busy meanwhile with neither the servers nor wrk.
        server_ms: Processor time of the server's processes for one request, in milliseconds.
    """

    requests_per_second: float
    p50: float
    p99: float
    other_work: float
    server_ms: float


Loads = dict[str, dict[int, list[Load]]]
"""By server and number of connections, one for every round."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A running server.

    Attributes:
        endpoint: How it is asked.
        pids: Its processes, which have their descendants counted with them.
        body: A file with the body of the request.
    """

    endpoint: Endpoint
    pids: tuple[int, ...]
    body: Path

    def load(self, connections: int, seconds: int) -> Load:
        """Keep so many requests under way for so long.

        Raises:
            ServerError: A request was refused, or not answered.
        """
        before = self._times()
        headers = [f"{name}: {value}" for name, value in self.endpoint.headers.items()]
        done = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"),
                *("-s", str(_SCRIPT), self.endpoint.url, "--", str(self.body), *headers),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 60,
        )
        elapsed, busy, server, wrk = (
            now - then for now, then in zip(self._times(), before, strict=True)
        )
        found = json.loads(done.stdout.splitlines()[-1])
        if found["refused"] or found["broken"] or not found["requests"]:
            raise ServerError(f"{self.endpoint.name} at {connections} connections: {found}")
        return Load(
            requests_per_second=found["requests"] / found["microseconds"] * 1e6,
            p50=found["p50"] / 1000,
            p99=found["p99"] / 1000,
            other_work=max(0.0, busy - server - wrk) / elapsed,
            server_ms=server / found["requests"] * 1000,
        )

    def quiet_load(self, connections: int, seconds: int) -> Load:
        """Return the load that other work disturbed least, of several where it did at all."""
        loads: list[Load] = []
        while len(loads) < _ATTEMPTS and all(load.other_work > _QUIET for load in loads):
            loads.append(self.load(connections, seconds))
        return min(loads, key=lambda load: load.other_work)

    def _times(self) -> tuple[float, float, float, float]:
        """The clock, and the processor time of everything, of this server, and of wrk."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        wrk = children.ru_utime + children.ru_stime
        return time.perf_counter(), busy_seconds(), sum(map(cpu_seconds, self.pids)), wrk


def _check_agreement(endpoints: Sequence[Endpoint]) -> None:
    """Ask each server once.

    Raises:
        ServerError: They do not give the same numbers.
    """
    first, *others = (endpoint.ask() for endpoint in endpoints)
    for endpoint, answer in zip(endpoints[1:], others, strict=True):
        # Two releases of ONNX Runtime, and decimal digits on the way: not bit for bit.
        if answer.shape != first.shape or not np.allclose(answer, first, rtol=1e-5):
            raise ServerError(f"{endpoint.name} answers other numbers than {endpoints[0].name}")
    progress.print(f"all {len(endpoints)} servers give the same numbers")


def _measure(
    targets: Sequence[_Target], *, connections: Sequence[int], seconds: int, rounds: int
) -> Loads:
    """Return the loads by server and number of connections."""
    loads: Loads = {
        target.endpoint.name: {count: [] for count in connections} for target in targets
    }
    # From few connections to many, each number warmed up by itself: BentoML waits for batches as
    # long as it has learned to, and unlearns that only over minutes.
    for count in connections:
        for target in targets:
            target.load(count, _WARM_UP_SECONDS)
        for turn in range(1, rounds + 1):
            for target in targets:
                load = target.quiet_load(count, seconds)
                loads[target.endpoint.name][count].append(load)
                progress.print(
                    f"round {turn} of {rounds}, {count} connections, {target.endpoint.name}: "
                    f"{load.requests_per_second:,.0f} req/s "
                    f"(other work: {load.other_work:.2f} cores)"
                )
    return loads


def median_load(loads: Sequence[Load]) -> Load:
    """Return the medians over the rounds."""
    return Load(*(median(values) for values in zip(*map(astuple, loads), strict=True)))


def spread(loads: Sequence[Load]) -> float:
    """Return how far the rounds lie apart in requests per second, of their median."""
    rates = [load.requests_per_second for load in loads]
    return (max(rates) - min(rates)) / median(rates)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`serve_and_measure` asks for."""
    parser.add_argument("--seconds", type=int, default=5, help="per measurement (5)")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements (3)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])


def serve_and_measure(
    endpoints: Sequence[Endpoint], folder: Path, options: argparse.Namespace
) -> Loads:
    """Run servers beside each other, and measure one at a time.

    Raises:
        ServerError: One did not start, refused a request, or gives other numbers than the first.
    """
    targets = []
    with ExitStack() as stack:
        for number, endpoint in enumerate(endpoints):
            progress.print(f"starting {endpoint.name}")
            body = folder / f"body-{number}"
            body.write_bytes(endpoint.body)
            pid = stack.enter_context(running(endpoint, folder))
            targets.append(_Target(endpoint, (pid, *endpoint.behind), body))
        _check_agreement(endpoints)
        return _measure(
            targets,
            connections=sorted(options.connections),
            seconds=options.seconds,
            rounds=options.rounds,
        )


def as_plain(loads: Loads) -> dict[str, Any]:
    """Return loads as JSON holds them."""
    return {
        server: {count: [asdict(load) for load in entry] for count, entry in by_count.items()}
        for server, by_count in loads.items()
    }
