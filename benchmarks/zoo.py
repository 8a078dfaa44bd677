"""Exports the model zoo with a bare script and with stlab, and counts what each gets right.

    python -m benchmarks.zoo [NAME ...]

The bare script converts the model and trusts the file; `zoo_bare.py` has one for every kind of
model. stlab is the whole export, proven on a real server. What either yields is then asked 1, 2, 5
and 16 rows, and compared with the registered model's own answer: words and whole numbers exactly,
numbers of torch within 2e-3, those of estimators and ONNX files within 1e-5 of the largest.
Estimators were trained on numbers with one decimal and are asked numbers with two, of which half
lie on thresholds. A number of rows that the registered model refuses must be refused. Of the models
that must not be served, anything that is served at all is wrong. What could be served, and is
refused, is missing among what is right.

A second table is of models with blind spots: their logged example does not show something on which
converters go wrong, and they get exactly those rows. Such a model is caught where it is served with
the registered model's answers or refused; silently wrong where it is served with others, or batched
though its rows depend on each other. What is served and fails when it is called is neither.
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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from rich.console import Console

from benchmarks.guard import guarded
from benchmarks.results import progress, write
from benchmarks.zoo_bare import Workplace, bare, workplace
from benchmarks.zoo_tables import Outcome, blind_table_of, table_of
from exporter.build.builder import build
from exporter.commands.export import pipeline
from exporter.commands.export.pipeline import export
from exporter.commands.export.request import ExportRequest
from exporter.errors import first_line
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.zoo.blind_spots import BLIND_SPOTS
from tests.zoo.catalogue import ROWS, ZOO, Model
from tests.zoo.comparing import is_right, judged

if TYPE_CHECKING:
    from tests.zoo.comparing import Ask


def asked(model: Model, ask: Ask) -> Outcome:
    """Return the numbers of rows at which answers are the model's."""
    if model not in BLIND_SPOTS:
        return Outcome(True, [count for count in ROWS if is_right(model, count, ask)])
    found = {count: judged(model, count, ask) for count in ROWS}
    right, wrong = ([n for n, what in found.items() if what == one] for one in ("right", "wrong"))
    return Outcome(True, right, wrong=wrong)


def scripted(model: Model, place: Workplace) -> Outcome:
    """Do what the script that everybody writes does."""
    started = time.monotonic()
    try:
        ask = bare(model, place)
    except Exception as error:  # noqa: BLE001 - whatever a converter raises
        return Outcome(False, [], first_line(error)[:80], seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    outcome = asked(model, ask)
    outcome.seconds = seconds
    return outcome


def stlab(model: Model, folder: Path, uri: str, server: TritonServer) -> Outcome:
    """Export it as the command does."""
    model.register()
    request = ExportRequest(
        model.name,
        "staging",
        tracking_uri=uri,
        repository=str(folder),
        allow_pickle=True,
        prove_on=server.grpc_url,
        triton_urls=(server.grpc_url,),
        max_batch_size=16,
    )
    started = time.monotonic()
    result = export(request)
    seconds = time.monotonic() - started
    parity = result.parity or {}
    strength = str(parity.get("strength", ""))
    if result.error is not None:
        reason = result.error["message"][:80]
        return Outcome(False, [], reason, strength=strength, seconds=seconds)
    with server.client() as client:
        served = client.model(model.name)
        outcome = asked(model, lambda given: list(served.infer(dict(given)).values()))
        client.repository.unload(model.name)
    outcome.strength, outcome.seconds = strength, seconds
    if model in BLIND_SPOTS and parity["batching"] == "dynamic" and not model.batched:
        # Rows of different callers would be mixed.
        outcome.right, outcome.wrong = [], list(ROWS)
    return outcome


def main() -> None:
    """Run both over the zoo and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    # In one process: the zoo is ours, and a process for each of its models would take minutes more.
    pipeline.build_isolated = build
    chosen = [model for model in (*ZOO, *BLIND_SPOTS) if not names or model.name in names]
    ways: dict[str, dict[str, Outcome]] = {"bare script": {}, "stlab-export": {}}
    with tempfile.TemporaryDirectory() as scratch, guarded():
        folder = Path(scratch)
        (folder / "repository").mkdir()
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(uri)
        runtime = ensure_runtime(release(DEFAULT_RELEASE))
        # First, since stlab has skl2onnx write its own trees for the rest of the process.
        with workplace(folder) as place:
            for model in chosen:
                with contextlib.redirect_stdout(io.StringIO()):
                    ways["bare script"][model.name] = scripted(model, place)
        with TritonServer.start(runtime, str(folder / "repository")) as server:
            server.wait_live()
            for model in chosen:
                with contextlib.redirect_stdout(io.StringIO()):
                    outcome = stlab(model, folder / "repository", uri, server)
                ways["stlab-export"][model.name] = outcome
                progress.print(model.name, *(outcomes[model.name] for outcomes in ways.values()))
    for table in (table_of(ways, chosen), blind_table_of(ways, chosen)):
        if table.row_count:
            Console().print(table)
    write("zoo", {way: {n: asdict(o) for n, o in found.items()} for way, found in ways.items()})


if __name__ == "__main__":
    main()
