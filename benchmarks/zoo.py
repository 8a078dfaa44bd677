"""Exports the model zoo with a bare script and with stlab, and counts what each gets right.

    python -m benchmarks.zoo [NAME ...]

The bare script calls ``torch.onnx.export`` on the loaded module with its example and a symbolic
batch, as `bare_export.py` does, and trusts the file. stlab is the whole export, proven on a real
server. What either yields is then asked 1, 2, 5 and 16 rows, and compared with the module: within
2e-3, and for the models that must not be served anything that is served at all is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.results import progress, write
from exporter import pipeline
from exporter.building import build
from exporter.pipeline import export
from exporter.settings import ExportRequest
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.zoo.catalogue import ZOO, Entry, answers, log, rows
from triton_client import TritonClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROWS = (1, 2, 5, 16)


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        exported: Whether there is something to serve.
        right: The numbers of rows at which it answers as the module does.
        reason: Why there is nothing to serve.
    """

    exported: bool
    right: list[int]
    reason: str = ""


def compare(entry: Entry, ask: Callable[[Mapping[str, Any]], list[Any]]) -> list[int]:
    """Return the numbers of rows at which answers are the module's."""
    right = []
    for count in ROWS:
        inputs = rows(entry, count)
        with contextlib.suppress(Exception):
            expected = answers(entry, inputs)
            found = ask(inputs)
            same = len(found) == len(expected) and all(
                np.allclose(
                    np.asarray(f).reshape(e.shape), e, rtol=2e-3, atol=2e-4 * np.abs(e).max()
                )
                for f, e in zip(found, expected, strict=True)
            )
            if same:
                right.append(count)
    return right


def bare(entry: Entry, folder: Path) -> Outcome:
    """Do what the script that everybody writes does."""
    module = entry.module()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in entry.example.items()}
    path = folder / f"{entry.name}.onnx"
    try:
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            module,
            tuple(tensors.values()),
            path,
            dynamo=True,
            input_names=list(tensors),
            dynamic_shapes=tuple({0: batch} for _ in tensors),
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path)
    except Exception as error:  # noqa: BLE001 - whatever torch raises
        return Outcome(False, [], str(error).strip().splitlines()[0][:80] if str(error) else "")
    names = [value.name for value in session.get_inputs()]
    return Outcome(
        True,
        compare(
            entry, lambda given: session.run(None, dict(zip(names, given.values(), strict=True)))
        ),
    )


def stlab(entry: Entry, folder: Path, uri: str, server: TritonServer) -> Outcome:
    """Export it as the command does."""
    log(mlflow.pytorch.log_model, entry, name="model", registered_model_name=entry.name)
    request = ExportRequest(
        entry.name,
        "staging",
        tracking_uri=uri,
        repository=str(folder),
        allow_pickle=True,
        prove_on=server.grpc_url,
        triton_urls=(server.grpc_url,),
        max_batch_size=16,
    )
    result = export(request)
    if result.error is not None:
        return Outcome(False, [], result.error["message"][:80])
    with TritonClient(server.grpc_url) as client:
        model = client.model(entry.name)
        right = compare(entry, lambda given: list(model.infer(dict(given)).values()))
        client.repository.unload(entry.name)
    return Outcome(True, right)


def counted(outcomes: Mapping[str, Outcome], entries: Mapping[str, Entry]) -> list[str]:
    """Return the figures of one way: exported, right at all rows, silently wrong, refused."""
    servable = [outcomes[name] for name, entry in entries.items() if entry.servable]
    others = [outcomes[name] for name, entry in entries.items() if not entry.servable]
    right = sum(len(o.right) == len(ROWS) for o in servable)
    wrong = sum(o.exported and len(o.right) < len(ROWS) for o in servable)
    wrong += sum(o.exported for o in others)
    refused = sum(not o.exported for o in others)
    exported = sum(o.exported for o in outcomes.values())
    return [
        str(exported),
        f"{right} of {len(servable)}",
        str(wrong),
        f"{refused} of {len(others)}",
    ]


def main() -> None:
    """Run both over the zoo and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args().names
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    # In one process: the zoo is ours, and a process for each of its models would take minutes more.
    pipeline.build_apart = build
    entries = {entry.name: entry for entry in ZOO if not chosen or entry.name in chosen}
    ways: dict[str, dict[str, Outcome]] = {"bare torch.onnx.export": {}, "stlab-export": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "repository").mkdir()
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(uri)
        runtime = ensure_runtime(release(DEFAULT_RELEASE))
        with TritonServer.start(runtime, str(folder / "repository")) as server:
            server.wait_live()
            for name, entry in entries.items():
                with contextlib.redirect_stdout(io.StringIO()):
                    ways["bare torch.onnx.export"][name] = bare(entry, folder)
                    ways["stlab-export"][name] = stlab(entry, folder / "repository", uri, server)
                progress.print(name, *(outcomes[name] for outcomes in ways.values()))
    table = Table("", "exported", "right at 1, 2, 5, 16 rows", "silently wrong", "refused rightly")
    for way, outcomes in ways.items():
        table.add_row(way, *counted(outcomes, entries))
    Console().print(table)
    write("zoo", {way: {n: asdict(o) for n, o in found.items()} for way, found in ways.items()})


if __name__ == "__main__":
    main()
