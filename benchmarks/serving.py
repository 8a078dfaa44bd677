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
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.guard import guarded
from benchmarks.load import (
    add_options,
    as_plain,
    has_wrk,
    median_load,
    serve_and_measure,
    spread,
)
from benchmarks.results import progress, write
from benchmarks.served import Served, use_registry
from benchmarks.servers import (
    Endpoint,
    ServerError,
    constant_backend,
    fastapi,
    mlflow_serve,
    triton,
)
from examples.us_income.stlab_commands import DemoError

if TYPE_CHECKING:
    from benchmarks.load import Loads

_MODELS = ("income", "gru")
_LEAST_RATIOS = (12.0, 40.0, None)


def _endpoints(served: Served, folder: Path) -> tuple[Endpoint, ...]:
    """Return the servers, ours first."""
    backends = constant_backend(served.answer, folder / f"backends-{served.name}")
    return (
        triton(served.repository, served.name, served.history),
        fastapi(served.path, served.history),
        mlflow_serve(served.onnx_uri, served.history),
        triton(served.repository, served.name, served.history, backends=backends),
    )


def _ratios(loads: Loads, count: int) -> list[float]:
    first, *others = (median_load(entry[count]).requests_per_second for entry in loads.values())
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
            middle = median_load(entry[count])
            table.add_row(
                "" if number else str(count),
                name,
                f"{middle.requests_per_second:,.0f}",
                f"{spread(entry[count]):.0%}",
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
    add_options(parser)
    return parser.parse_args()


def main() -> int:
    """Run it; 2 without wrk, 1 if a server fails."""
    options = _options()
    if not has_wrk():
        return 2
    results = {}
    try:
        with tempfile.TemporaryDirectory(prefix="stlab-bench-") as scratch, guarded():
            folder = Path(scratch)
            use_registry(folder)
            for name in options.models:
                served = Served.make(name, folder)
                results[name] = serve_and_measure(_endpoints(served, folder), folder, options)
    except (ServerError, DemoError) as error:
        progress.print(str(error), markup=False)
        return 1
    for name, loads in results.items():
        _show(name, loads)
    models = {model: as_plain(loads) for model, loads in results.items()}
    write("serving", {"seconds": options.seconds, "models": models})
    return 0


if __name__ == "__main__":
    sys.exit(main())
