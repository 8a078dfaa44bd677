"""Measures what ``--precision fp16`` and ``int8`` save and cost, beside fp32.

    python -m benchmarks.precision [--models mlp convnet transformer income]

Four models are exported in each precision by the whole pipeline, real server included: a
perceptron, a convolution net and a transformer fitted to scikit-learn's handwritten digits, and the
demo's model, fitted to real incomes. Size is that of the model files, speed that of ONNX Runtime in
this process on one core with 32 rows, the precisions in turn; a GPU's would be others. Error is the
largest of all comparisons on the wire with the registered model, as a part of the output's largest
value; right is how many of 450 digits that were held out the published file classifies rightly.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.guard import guarded
from benchmarks.precision_models import MODELS, Digits, fitted
from benchmarks.results import progress, write
from exporter.commands.export.pipeline import export
from exporter.commands.export.request import PRECISIONS, ExportRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = (*MODELS, "income")
ROWS, RUNS = 32, 60


@dataclass
class Outcome:
    """What became of one model in one precision.

    Attributes:
        verdict: ``promoted``, or why not.
        size: Bytes of the model files.
        milliseconds: The median time of a batch.
        error: The largest error, as a part of the output's largest value.
        margin: The worst error divided by its budget.
        kept: How many nodes keep float32.
        right: The part of held-out digits that is classified rightly.
    """

    verdict: str
    size: int = 0
    milliseconds: float = 0.0
    error: float = 0.0
    margin: float = 0.0
    kept: int = 0
    right: float | None = None


def register(name: str, digits: Digits, uri: str) -> np.ndarray[Any, Any]:
    """Fit and register a model; return rows to ask it."""
    if name == "income":
        from examples.us_income.train import train_and_register

        version = train_and_register(uri)
        loaded = mlflow.models.Model.load(f"models:/income/{version}")
        example = loaded.load_input_example(f"models:/income/{version}")
        (rows,) = example.values() if isinstance(example, dict) else (example,)
        return np.resize(rows, (ROWS, *rows.shape[1:]))
    model = fitted(name, digits)
    example = digits.seen[:ROWS]
    with torch.no_grad():
        answer = model(torch.from_numpy(example)).numpy()
    mlflow.pytorch.log_model(
        model,
        name=name,
        registered_model_name=name,
        input_example=example,
        signature=mlflow.models.infer_signature(example, answer),
        serialization_format="pt2",
        pip_requirements=["torch"],
        validate_serving_input=False,
    )
    return example


def exported(name: str, precision: str, folder: Path, uri: str) -> tuple[Outcome, Path]:
    """Export a model as the command does, and return where its file lies."""
    repository = folder / precision
    request = ExportRequest(
        name, "staging", tracking_uri=uri, repository=str(repository), precision=precision
    )
    result = export(request)
    published = repository / name / "1"
    if result.error is not None or result.parity is None:
        return Outcome(str((result.error or {}).get("message", result.status))), published
    files = [*published.glob("model.onnx*")]
    kept = Outcome("promoted", sum(file.stat().st_size for file in files))
    kept.error, kept.margin = result.parity["max_abs_error"], result.parity["margin"]
    return kept, published


def measured(outcomes: Mapping[str, Outcome], files: Mapping[str, Path], rows: Any) -> float:
    """Time what was published, in turn; return the largest value of the output in fp32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        precision: onnxruntime.InferenceSession(files[precision] / "model.onnx", options)
        for precision, outcome in outcomes.items()
        if outcome.verdict == "promoted"
    }
    (name,) = (value.name for value in sessions["fp32"].get_inputs())
    (largest,) = (np.abs(array).max() for array in sessions["fp32"].run(None, {name: rows}))
    taken: dict[str, list[float]] = {precision: [] for precision in sessions}
    for _ in range(RUNS):
        for precision, session in sessions.items():
            begin = time.perf_counter()
            session.run(None, {name: rows})
            taken[precision].append(1e3 * (time.perf_counter() - begin))
    for precision, times in taken.items():
        outcomes[precision].milliseconds = median(times)
    return float(largest)


def right(path: Path, digits: Digits) -> float:
    """Return the part of held-out digits that a published file classifies rightly."""
    session = onnxruntime.InferenceSession(path / "model.onnx")
    (name,) = (value.name for value in session.get_inputs())
    (scores,) = session.run(None, {name: digits.held_out})
    return float((scores.argmax(1) == digits.held_out_labels).mean())


def compare(name: str, digits: Digits, folder: Path, uri: str) -> dict[str, Outcome]:
    """Export one model in every precision, and measure what was published."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        rows = register(name, digits, uri)
    outcomes, files = {}, {}
    for precision in PRECISIONS:
        outcomes[precision], files[precision] = exported(name, precision, folder, uri)
        progress.print(f"{name} {precision}: {outcomes[precision].verdict}")
    largest = measured(outcomes, files, rows)
    for precision, outcome in outcomes.items():
        if outcome.verdict != "promoted":
            continue
        outcome.error /= largest
        outcome.kept = _kept(files[precision])
        if name in MODELS:
            outcome.right = right(files[precision], digits)
    return outcomes


def _kept(published: Path) -> int:
    import json

    manifest = json.loads((published / "manifest.json").read_bytes())
    return len(manifest.get("reduced", {}).get("kept_float32", ()))


def show(results: Mapping[str, Mapping[str, Outcome]]) -> None:
    """Print the table."""
    table = Table("model", "precision", title="Beside fp32", title_justify="left")
    headings = ("size", "", "time", "", "error", "of budget", "float32 kept", "right", "verdict")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    for name, outcomes in results.items():
        for precision, outcome in outcomes.items():
            table.add_row(
                name if precision == "fp32" else "",
                precision,
                *_cells(outcome, outcomes["fp32"]),
                outcome.verdict if outcome.verdict == "promoted" else f"refused: {outcome.verdict}",
            )
    Console(width=140).print(table)


def _cells(outcome: Outcome, whole: Outcome) -> Sequence[str]:
    if outcome.verdict != "promoted":
        return ["-"] * 8
    return [
        f"{outcome.size / 1024:,.0f} KB",
        f"{outcome.size / whole.size:.2f} x",
        f"{outcome.milliseconds:.3f} ms",
        f"{outcome.milliseconds / whole.milliseconds:.2f} x",
        f"{outcome.error:.1e}",
        f"{outcome.margin:.2f}",
        str(outcome.kept),
        "-" if outcome.right is None else f"{outcome.right:.1%}",
    ]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="Measure lower precisions beside fp32.")
    parser.add_argument("--models", nargs="*", choices=NAMES, default=list(NAMES))
    chosen = parser.parse_args().models
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    digits = Digits.load()
    results: dict[str, dict[str, Outcome]] = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="stlab-bench-") as scratch, guarded():
        os.chdir(scratch)  # MLflow puts the artifacts of a SQLite registry below it
        try:
            uri = f"sqlite:///{scratch}/mlflow.db"
            mlflow.set_tracking_uri(uri)
            for name in chosen:
                results[name] = compare(name, digits, Path(scratch), uri)
        finally:
            os.chdir(before)
    show(results)
    plain = {n: {p: asdict(o) for p, o in found.items()} for n, found in results.items()}
    write("precision", {"rows": ROWS, "models": plain})


if __name__ == "__main__":
    main()
