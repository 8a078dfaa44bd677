"""Measures stlab's HTTP service beside ``mlflow models serve``, BentoML and LitServe.

    python -m benchmarks.api [--seconds 5] [--rounds 3] [--connections 1 8 32]

All serve the demo's model, one row a request, JSON there and back, in one worker process: the
service in process (``local``) and through ``stlab serve`` (``triton``), MLflow the same ONNX file
in its onnx flavor, BentoML with adaptive batching and LitServe with batching (`rivals/`, installed
into an environment of their own, ``benchmarks/.rivals``). ONNX Runtime is of one release but in
Triton, with one thread each; none logs requests. Before anything is measured all must give the same
numbers.

The load comes from wrk and is measured as in `serving.py`: in turn, medians over the rounds, again
where other work kept more than a fifth of a core busy. A ratio is to the best of the others in that
column: above one is better in requests per second, below one in latency. The processor time of one
request, over all processes of a server, hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.api_servers import OURS, RIVALS, endpoints
from benchmarks.guard import guarded
from benchmarks.load import add_options, as_plain, has_wrk, median_load, serve_and_measure, spread
from benchmarks.results import progress, write
from benchmarks.served import Served, use_registry
from benchmarks.servers import ServerError
from examples.us_income.stlab_commands import DemoError

if TYPE_CHECKING:
    from benchmarks.load import Loads

_MODEL = "income"
_HEADINGS = ("req/s", "ratio", "p50 ms", "p99 ms", "ratio", "CPU ms", "ratio", "spread", "others")
_PACKAGES = ("bentoml", "litserve", "onnxruntime")


def _show(loads: Loads) -> None:
    table = Table(
        title=f"{_MODEL}: one row a request, JSON, medians (ratios to the best of the others)",
        title_justify="left",
    )
    table.add_column("", justify="right")
    table.add_column("server")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for count in next(iter(loads.values())):
        medians = {name: median_load(entry[count]) for name, entry in loads.items()}
        others = list(medians.values())[OURS:]
        most = max(other.requests_per_second for other in others)
        soonest = min(other.p99 for other in others)
        cheapest = min(other.server_ms for other in others)
        for number, (name, load) in enumerate(medians.items()):
            table.add_row(
                "" if number else str(count),
                name,
                f"{load.requests_per_second:,.0f}",
                f"{load.requests_per_second / most:.2f}",
                f"{load.p50:.2f}",
                f"{load.p99:.2f}",
                f"{load.p99 / soonest:.2f}",
                f"{load.server_ms:.2f}",
                f"{load.server_ms / cheapest:.2f}",
                f"{spread(loads[name][count]):.0%}",
                f"{load.other_work:.2f}",
                end_section=number == len(medians) - 1,
            )
    table.caption = "first column: connections; CPU ms: of a request; others: cores busy elsewhere"
    Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(table)


def _rivals() -> dict[str, str]:
    """Return the releases of what is measured beside us."""
    code = "import json, sys; from importlib.metadata import version; "
    code += "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    done = subprocess.run(
        [str(RIVALS / "python"), "-c", code, *_PACKAGES], check=True, capture_output=True, text=True
    )
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def main() -> int:
    """Run it; 2 without wrk or the others, 1 if a server fails."""
    parser = argparse.ArgumentParser(description="Measure the HTTP service beside three others.")
    add_options(parser)
    options = parser.parse_args()
    if not has_wrk():
        return 2
    if not (RIVALS / "bentoml").exists():
        progress.print("the others are not installed: make bench-api installs them")
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="stlab-bench-") as scratch, guarded():
            folder = Path(scratch)
            use_registry(folder)
            served = Served.make(_MODEL, folder)
            with endpoints(served, folder) as servers:
                loads = serve_and_measure(servers, folder, options)
    except (ServerError, DemoError) as error:
        progress.print(str(error), markup=False)
        return 1
    _show(loads)
    write("api", {"seconds": options.seconds, "rivals": _rivals(), "servers": as_plain(loads)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
