"""A model that is registered, exported, and registered once more as ONNX: what servers get."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.results import ROOT, progress
from examples.us_income.stlab_commands import export

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Served", "use_registry"]


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
        onnx_uri = _register_onnx(name, path, question, answer)
        return cls(name, repository, path, onnx_uri, question, answer)


def _register_onnx(name: str, path: Path, question: np.ndarray, answer: np.ndarray) -> str:
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


def use_registry(folder: Path) -> None:
    """Point MLflow at a registry of the benchmark's own, whatever the caller's settings say."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "STLAB_"))]:
        if name != "STLAB_CACHE":
            del os.environ[name]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # What MLflow names relative to the working directory belongs into the scratch folder as well.
    os.chdir(folder)
