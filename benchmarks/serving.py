"""Measures what a server answers: the embedded Triton, FastAPI and ``mlflow models serve``.

    python benchmarks/serving.py [--models income gru] [--seconds 5] [--rounds 3]

All three serve the same registered model, one row a request: Triton the version that
``stlab-export`` exported, asked with binary tensors; FastAPI (`fastapi_app.py`, one uvicorn worker)
the same ONNX file, asked with JSON; MLflow the same file registered in its onnx flavor, since its
pytorch flavor serves no model whose signature names its tensors. ONNX Runtime gets one thread in
each. A fourth server is the embedded Triton with a backend in Python that computes nothing: as fast
as any in Python can be there. Before anything is measured all must give the same numbers.

Two models, since the ratio depends on how much there is to compute: the demo's, which takes a tenth
of a millisecond a row, and a small GRU, where nearly all of the time is the server's own.

The load comes from wrk, one thread, over kept-alive loopback connections that each send the next
request when the last is answered. They take turns in every round, and the figures are the
medians over the rounds. What other work the machine did meanwhile is shown, since a server of
several processes loses more by it than one of a single process; where it kept more than a fifth of
a core busy, the measurement is made again, three times at most. An answer other than 2xx, or none,
is a failure of the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stderr
from dataclasses import asdict, astuple, dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.processes import busy_seconds, cpu_seconds
from benchmarks.results import ROOT, progress, write
from benchmarks.servers import (
    Endpoint,
    ServerError,
    constant_backend,
    fastapi,
    mlflow_serve,
    running,
    triton,
)
from examples.us_income.stlab import DemoError, export

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODELS = ("income", "gru")
_WARM_UP_SECONDS = 2
_LEAST_RATIOS = (12.0, 40.0, None)
# Where others keep more of a core busy than this, it is measured again, so many times in all.
_QUIET, _ATTEMPTS = 0.2, 3
_SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured in one go.

    Attributes:
        requests_per_second: Answered.
        p50: Median latency in milliseconds.
        p99: 99th percentile of the latency in milliseconds.
        other_work: Cores that were busy meanwhile with neither the servers nor wrk.
    """

    requests_per_second: float
    p50: float
    p99: float
    other_work: float


Loads = dict[str, dict[int, list[Load]]]
"""By server and number of connections, one for every round."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running server.

    Attributes:
        endpoint: How it is asked.
        pid: Its process.
        body: A file with the body of the request.
    """

    endpoint: Endpoint
    pid: int
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
        elapsed, busy, ours = (now - then for now, then in zip(self._times(), before, strict=True))
        found = json.loads(done.stdout.splitlines()[-1])
        if found["refused"] or found["broken"] or not found["requests"]:
            raise ServerError(f"{self.endpoint.name} at {connections} connections: {found}")
        return Load(
            requests_per_second=found["requests"] / found["microseconds"] * 1e6,
            p50=found["p50"] / 1000,
            p99=found["p99"] / 1000,
            other_work=max(0.0, busy - ours) / elapsed,
        )

    def quiet_load(self, connections: int, seconds: int) -> Load:
        """Return the load that other work disturbed least, of several where it did at all."""
        loads: list[Load] = []
        while len(loads) < _ATTEMPTS and all(load.other_work > _QUIET for load in loads):
            loads.append(self.load(connections, seconds))
        return min(loads, key=lambda load: load.other_work)

    def _times(self) -> tuple[float, float, float]:
        """The clock, and the processor time of everything, and of this server with wrk."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        wrk = children.ru_utime + children.ru_stime
        return time.perf_counter(), busy_seconds(), cpu_seconds(self.pid) + wrk


@dataclass(frozen=True, slots=True)
class Served:
    """A model as all servers get it.

    Attributes:
        name: Its name in the registry and the repository.
        repository: Where ``stlab-export`` put it.
        path: The ONNX file in there.
        onnx_uri: The same file, registered in MLflow's onnx flavor.
        history: One row to ask with.
        answer: What the registered model says to it.
    """

    name: str
    repository: Path
    path: Path
    onnx_uri: str
    history: np.ndarray
    answer: np.ndarray

    @classmethod
    def make(cls, name: str, folder: Path) -> Served:
        """Register the model with torch, export it, and register what came of it."""
        progress.print(f"{name}: registering and exporting")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.models", name, "--folder", str(folder)),
                *("--tracking-uri", os.environ["MLFLOW_TRACKING_URI"]),
            ],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        facts = json.loads(done.stdout.splitlines()[-1])
        with np.load(facts["question"]) as file:
            question, answer = file["question"][:1], file["answer"][:1]
        repository = folder / f"repository-{name}"
        export(name, "staging", repository=str(repository), environment=environment)
        (path,) = repository.glob(f"{name}/*/model.onnx")
        onnx_uri = register_onnx(name, path, question, answer)
        return cls(name, repository, path, onnx_uri, question, answer)

    def endpoints(self, folder: Path) -> tuple[Endpoint, ...]:
        """Return the servers, ours first."""
        backends = constant_backend(self.answer, folder / f"backends-{self.name}")
        return (
            triton(self.repository, self.name, self.history),
            fastapi(self.path, self.history),
            mlflow_serve(self.onnx_uri, self.history),
            triton(self.repository, self.name, self.history, backends=backends),
        )


def register_onnx(name: str, path: Path, question: np.ndarray, answer: np.ndarray) -> str:
    """Register an ONNX file in MLflow, with the threads of the others, and return its URI."""
    import mlflow
    import onnx

    from benchmarks.models import signature

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    # MLflow announces the new version on stderr past its own log level.
    with redirect_stderr(StringIO()):
        info = mlflow.onnx.log_model(
            onnx.load(path),
            name=f"{name}-onnx",
            registered_model_name=f"{name}-onnx",
            signature=signature(question, answer),
            onnx_session_options={
                "intra_op_num_threads": 1,
                "inter_op_num_threads": 1,
                "extra_session_config": {"session.intra_op.allow_spinning": "0"},
            },
            pip_requirements=["onnxruntime"],
        )
    return f"models:/{name}-onnx/{info.registered_model_version}"


def check_agreement(endpoints: Sequence[Endpoint]) -> None:
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


def measure(
    targets: Sequence[Target], *, connections: Sequence[int], seconds: int, rounds: int
) -> Loads:
    """Return the loads by server and number of connections."""
    loads: Loads = {
        target.endpoint.name: {count: [] for count in connections} for target in targets
    }
    for target in targets:
        target.load(max(connections), _WARM_UP_SECONDS)
    for turn in range(1, rounds + 1):
        for count in connections:
            for target in targets:
                load = target.quiet_load(count, seconds)
                loads[target.endpoint.name][count].append(load)
                progress.print(
                    f"round {turn} of {rounds}, {count} connections, {target.endpoint.name}: "
                    f"{load.requests_per_second:,.0f} req/s "
                    f"(other work: {load.other_work:.2f} cores)"
                )
    return loads


def _middle(loads: Sequence[Load]) -> Load:
    return Load(*(median(values) for values in zip(*map(astuple, loads), strict=True)))


def _spread(loads: Sequence[Load]) -> float:
    rates = [load.requests_per_second for load in loads]
    return (max(rates) - min(rates)) / median(rates)


def _ratios(loads: Loads, count: int) -> list[float]:
    first, *others = (_middle(entry[count]).requests_per_second for entry in loads.values())
    return [first / other for other in others]


def _show(model: str, loads: Loads) -> None:
    table = Table(title=f"{model}: one row a request, medians", title_justify="left")
    table.add_column("connections", justify="right")
    table.add_column("server")
    for heading in ("req/s", "spread", "p50 ms", "p99 ms", "other work", "Triton is"):
        table.add_column(heading, justify="right")
    counts = list(next(iter(loads.values())))
    for count in counts:
        ratios = ["", *(f"{ratio:.2g} x" for ratio in _ratios(loads, count))]
        for number, (name, entry) in enumerate(loads.items()):
            middle = _middle(entry[count])
            table.add_row(
                "" if number else str(count),
                name,
                f"{middle.requests_per_second:,.0f}",
                f"{_spread(entry[count]):.0%}",
                f"{middle.p50:.2f}",
                f"{middle.p99:.2f}",
                f"{middle.other_work:.2f} cores",
                ratios[number],
                end_section=number == len(loads) - 1,
            )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for ratio, least, name in zip(
        _ratios(loads, counts[-1]), _LEAST_RATIOS, list(loads)[1:], strict=True
    ):
        aim = ""
        if least is not None:
            verdict = "[green]reached[/]" if ratio >= least else "[red]missed[/]"
            aim = f" (aim {least:g} x: {verdict})"
        console.print(f"{model}, {counts[-1]} connections: {ratio:.2g} x {name}{aim}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure three servers on one model.")
    parser.add_argument("--models", nargs="+", choices=_MODELS, default=list(_MODELS))
    parser.add_argument("--seconds", type=int, default=5, help="per measurement (5)")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements (3)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    return parser.parse_args()


def main() -> int:
    """Run it; 2 without wrk, 1 if a server fails."""
    options = _options()
    if shutil.which("wrk") is None:
        progress.print("wrk, the load generator, is missing: apt-get install wrk")
        return 2
    results = {}
    try:
        with tempfile.TemporaryDirectory(prefix="stlab-bench-") as scratch:
            folder = Path(scratch)
            _use_registry(folder)
            for name in options.models:
                results[name] = serve_and_measure(Served.make(name, folder), folder, options)
    except (ServerError, DemoError) as error:
        progress.print(str(error), markup=False)
        return 1
    for name, loads in results.items():
        _show(name, loads)
    write(
        "serving",
        {
            "seconds": options.seconds,
            "models": {
                model: {
                    server: {
                        count: [asdict(load) for load in entry] for count, entry in by_count.items()
                    }
                    for server, by_count in loads.items()
                }
                for model, loads in results.items()
            },
        },
    )
    return 0


def serve_and_measure(served: Served, folder: Path, options: argparse.Namespace) -> Loads:
    """Run the servers beside each other, and measure one at a time."""
    endpoints, targets = served.endpoints(folder), []
    with ExitStack() as stack:
        for number, endpoint in enumerate(endpoints):
            progress.print(f"{served.name}: starting {endpoint.name}")
            body = folder / f"body-{number}"
            body.write_bytes(endpoint.body)
            targets.append(Target(endpoint, stack.enter_context(running(endpoint, folder)), body))
        check_agreement(endpoints)
        return measure(
            targets,
            connections=sorted(options.connections),
            seconds=options.seconds,
            rounds=options.rounds,
        )


def _use_registry(folder: Path) -> None:
    """Point MLflow at a registry of the benchmark's own, whatever the caller's settings say."""
    import logging

    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "STLAB_"))]:
        if name != "STLAB_CACHE":
            del os.environ[name]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # What MLflow names relative to the working directory belongs into the scratch folder as well.
    os.chdir(folder)


if __name__ == "__main__":
    sys.exit(main())
