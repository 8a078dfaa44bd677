"""Measures ``stlab-export`` beside the bare script that a team would write without it.

    python benchmarks/export.py [--models income encoder] [--repetitions N] [--huge]

Both run as whole processes, in turn, on the same registered versions: the demo's model and a
transformer encoder of 108 million parameters. `bare_export.py` loads, converts, compares once and
writes a file. ``stlab-export`` does all that it always does: it converts, proves on a private
server, publishes, records and moves the alias, each time into an empty repository and against a
registry in which nothing was exported yet; the embedded server is installed before. Then it runs
once more with nothing to do. What one run takes is the median over the repetitions.

Peak memory is ``ru_maxrss``, that of the largest process among the command and those it waited for:
``stlab-export`` loads and converts in a process of its own. The proving server's largest process is
shown apart, and so is the largest sum of all at one time, pages that they share counted once.

With ``--huge`` a model of 2.4 GB, more than one protobuf holds, is exported and served, and its
answer compared with the registered model's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.guard import guarded
from benchmarks.processes import CommandError, Usage, measure, server_bytes
from benchmarks.results import ROOT, progress, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_REPETITIONS = {"income": 3, "encoder": 2}
_TITLES = {
    "income": "the demo's model",
    "encoder": "a transformer encoder",
    "huge": "a model above 2 GB",
}
_TIMEOUT = 900.0
_BIN = Path(sys.executable).parent

_MOST_TIME, _MOST_UNCHANGED_SECONDS, _MOST_MEMORY = 2.0, 3.0, 2.5


@dataclass(frozen=True, slots=True)
class Registered:
    """A model in a registry of its own.

    Attributes:
        name: Its name there.
        folder: Where the registry lies; a registry before any export is kept as ``pristine.db``.
        weights_bytes: What its parameters and buffers hold.
        question: A npz with one ``question`` and the registered model's ``answer``.
    """

    name: str
    folder: Path
    weights_bytes: int
    question: Path

    @classmethod
    def make(cls, name: str, folder: Path) -> Registered:
        """Train or build a model and register it."""
        progress.print(f"{_TITLES[name]}: registering")
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.models", name]
        usage = measure(
            [*command, "--tracking-uri", f"sqlite:///{folder}/mlflow.db"],
            folder=folder,
            environment=_environment(folder),
            timeout=_TIMEOUT,
        )
        facts = json.loads(usage.stdout.splitlines()[-1])
        shutil.copyfile(folder / "mlflow.db", folder / "pristine.db")
        return cls(name, folder, facts["weights_bytes"], Path(facts["question"]))

    def forget_exports(self) -> None:
        """Bring the registry and the repository back to where nothing was exported."""
        shutil.copyfile(self.folder / "pristine.db", self.folder / "mlflow.db")
        for name in ("model_repository", ".model_repository.stlab"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def export(self) -> Usage:
        """Run ``stlab-export``."""
        return self._run([str(_BIN / "stlab-export"), self.name, "--alias", "staging", "--json"])

    def bare_export(self) -> Usage:
        """Run the bare script."""
        return self._run([sys.executable, str(ROOT / "benchmarks/bare_export.py"), self.name])

    def _run(self, command: Sequence[str]) -> Usage:
        return measure(
            command, folder=self.folder, environment=_environment(self.folder), timeout=_TIMEOUT
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both ways on one model."""

    model: Registered
    bare: tuple[Usage, ...]
    stlab: tuple[Usage, ...]
    unchanged: tuple[Usage, ...]

    @property
    def time_ratio(self) -> float:
        """Wall seconds of ``stlab-export`` in those of the bare script."""
        return _median(self.stlab, "seconds") / _median(self.bare, "seconds")

    @property
    def cpu_ratio(self) -> float:
        """The same for processor time, which other work on the machine disturbs less."""
        return _median(self.stlab, "cpu_seconds") / _median(self.bare, "cpu_seconds")

    @property
    def unchanged_seconds(self) -> float:
        """Wall seconds of a run that finds nothing to do."""
        return _median(self.unchanged, "seconds")

    @property
    def memory_ratio(self) -> float:
        """Peak RSS of the largest process of ``stlab-export`` in bytes of weights."""
        return _median(self.stlab, "peak_bytes") / self.model.weights_bytes

    @property
    def together_ratio(self) -> float:
        """The same for all of its processes at one time."""
        return _median(self.stlab, "together_bytes") / self.model.weights_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return every run and the ratios."""
        return {
            "weights_bytes": self.model.weights_bytes,
            "time_ratio": self.time_ratio,
            "cpu_ratio": self.cpu_ratio,
            "unchanged_seconds": self.unchanged_seconds,
            "memory_over_weights": self.memory_ratio,
            "memory_together_over_weights": self.together_ratio,
            "bare": [_run_facts(usage) for usage in self.bare],
            "stlab_export": [_run_facts(usage) for usage in self.stlab],
            "unchanged": [_run_facts(usage) for usage in self.unchanged],
        }


def compare(model: Registered, repetitions: int) -> Comparison:
    """Run the bare script, the export and the export with nothing to do, in turn."""
    bare, stlab, unchanged = [], [], []
    for number in range(1, repetitions + 1):
        model.forget_exports()
        turn = f"{_TITLES[model.name]}, {number} of {repetitions}"
        bare.append(_timed(f"{turn}: bare script", model.bare_export))
        stlab.append(_timed(f"{turn}: stlab-export", model.export))
        unchanged.append(_timed(f"{turn}: stlab-export again", model.export))
        _expect_status("promoted", stlab[-1])
        _expect_status("unchanged", unchanged[-1])
    return Comparison(model, tuple(bare), tuple(stlab), tuple(unchanged))


def export_and_serve(model: Registered) -> dict[str, Any]:
    """Export the model above 2 GB, serve it, and compare its answer with the registered one's."""
    exported = _timed(f"{_TITLES[model.name]}: stlab-export", model.export)
    _expect_status("promoted", exported)
    served = _timed(
        f"{_TITLES[model.name]}: stlab serve",
        lambda: measure(
            [sys.executable, "-m", "benchmarks.serve_once", model.name, str(model.question)],
            folder=model.folder,
            environment=_environment(model.folder),
            timeout=_TIMEOUT,
        ),
    )
    return {
        "weights_bytes": model.weights_bytes,
        "memory_over_weights": exported.peak_bytes / model.weights_bytes,
        "stlab_export": _run_facts(exported),
        "served": {**_run_facts(served), **json.loads(served.stdout)},
    }


def _timed(label: str, run: Callable[[], Usage]) -> Usage:
    usage = run()
    progress.print(f"{label}: {usage.seconds:.1f} s, {_megabytes(usage.peak_bytes)}")
    return usage


def _expect_status(status: str, usage: Usage) -> None:
    found = json.loads(usage.stdout)["status"]
    if found != status:
        raise CommandError(f"stlab-export ended with status {found!r}, not {status!r}")


def _run_facts(usage: Usage) -> dict[str, Any]:
    facts = asdict(usage)
    printed = facts.pop("stdout")
    if printed.startswith("{") and "seconds" in (report := json.loads(printed)):
        facts["steps"] = report["seconds"]
    return facts


def _median(runs: Sequence[Usage], name: str) -> float:
    return float(median(getattr(usage, name) for usage in runs))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's settings, but its folders and its network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "STLAB_"))}
    if "STLAB_CACHE" in os.environ:
        kept["STLAB_CACHE"] = os.environ["STLAB_CACHE"]
    return {
        **kept,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ROOT),
    }


def _show(comparisons: Sequence[Comparison]) -> None:
    runs = Table(title="Whole processes, medians", title_justify="left")
    runs.add_column("model")
    runs.add_column("command")
    for heading in ("seconds", "CPU s", "peak RSS", "server", "all at once"):
        runs.add_column(heading, justify="right")
    ratios = Table(title="stlab-export", title_justify="left")
    ratios.add_column("model")
    for heading in (
        "time / bare",
        "CPU / bare",
        "unchanged run",
        "peak / weights",
        "all / weights",
    ):
        ratios.add_column(heading, justify="right")
    for entry in comparisons:
        name = f"{entry.model.name} ({entry.model.weights_bytes / 1e6:,.2f} MB)"
        for command, usages in (
            ("bare script", entry.bare),
            ("stlab-export", entry.stlab),
            ("… again, unchanged", entry.unchanged),
        ):
            runs.add_row(
                name,
                command,
                f"{_median(usages, 'seconds'):.1f}",
                f"{_median(usages, 'cpu_seconds'):.1f}",
                _megabytes(_median(usages, "peak_bytes")),
                _megabytes(_median(usages, "server_bytes")),
                _megabytes(_median(usages, "together_bytes")),
            )
            name = ""
        large = entry.model.name == "encoder"
        ratios.add_row(
            entry.model.name,
            _against(entry.time_ratio, _MOST_TIME, "x"),
            f"{entry.cpu_ratio:.2f} x",
            _against(entry.unchanged_seconds, _MOST_UNCHANGED_SECONDS, "s"),
            _against(entry.memory_ratio, _MOST_MEMORY, "x") if large else "-",
            f"{entry.together_ratio:.2f} x" if large else "-",
        )
    _print(runs, ratios)


def _show_huge(facts: dict[str, Any]) -> None:
    table = Table(title="A model above 2 GB", title_justify="left")
    for heading in ("step", "seconds", "peak RSS", "server", "answer"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    exported, served = facts["stlab_export"], facts["served"]
    table.add_row(
        f"stlab-export ({_megabytes(facts['weights_bytes'])})",
        f"{exported['seconds']:.1f}",
        f"{_megabytes(exported['peak_bytes'])} ({facts['memory_over_weights']:.2f} x weights)",
        _megabytes(server_bytes(exported["descendants"])),
        "proven",
    )
    table.add_row(
        "stlab serve",
        f"{served['ready_seconds']:.1f} to ready, {served['answer_seconds']:.2f} to answer",
        "",
        _megabytes(server_bytes(served["descendants"])),
        f"within {served['largest_difference']:.1e} of the registered model's",
    )
    _print(table)


def _print(*tables: Table) -> None:
    # A file or a pipe has no width of its own; the tables should not break there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for table in tables:
        console.print(table)


def _against(value: float, most: float, unit: str) -> str:
    verdict = "[green]within" if value <= most else "[red]above"
    return f"{value:.2f} {unit} ({verdict} {most:g}[/])"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure stlab-export beside a bare script.")
    parser.add_argument("--models", nargs="*", choices=_REPETITIONS, default=list(_REPETITIONS))
    parser.add_argument(
        "--repetitions", type=int, help="how often each way runs (3 for income, 2 for encoder)"
    )
    parser.add_argument(
        "--huge", action="store_true", help="export and serve a model of 2.4 GB as well"
    )
    return parser.parse_args()


def main() -> int:
    """Run what the options ask for; 1 if a command fails."""
    options = _options()
    comparisons: list[Comparison] = []
    results: dict[str, Any] = {"models": {}}
    try:
        with tempfile.TemporaryDirectory(prefix="stlab-bench-") as scratch, guarded():
            for name in options.models:
                model = Registered.make(name, Path(scratch) / name)
                if not comparisons:
                    progress.print("one run of each that is not counted")
                    model.bare_export()
                    model.export()
                repetitions = options.repetitions or _REPETITIONS[name]
                comparisons.append(compare(model, repetitions))
                results["models"][name] = comparisons[-1].as_dict()
                shutil.rmtree(model.folder)
            if options.huge:
                results["huge"] = export_and_serve(Registered.make("huge", Path(scratch) / "huge"))
    except CommandError as error:
        progress.print(str(error), markup=False)
        return 1
    if comparisons:
        _show(comparisons)
    if options.huge:
        _show_huge(results["huge"])
    write("export", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
