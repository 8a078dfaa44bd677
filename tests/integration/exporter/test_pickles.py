"""Pickled models: not a line of theirs runs unless that is allowed, and then it is alone."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import cloudpickle
import mlflow
import pytest
import torch
from mlflow.models import infer_signature
from torch import nn

from .models import ROWS
from .registering import Lab
from .running import command

pytestmark = pytest.mark.triton
SECRET = "much-guarded"


class Spy:
    """Notes, when it is unpickled, what the process that does so can reach."""

    def __init__(self, notes: str) -> None:
        self.notes = notes

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return look_around, (self.notes,)


def look_around(notes: str) -> str:
    import os
    import socket
    from pathlib import Path

    seen = {"variables": sorted(os.environ), "network": [], "process": os.getpid()}
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
            seen["network"].append(family.name)
        except OSError:
            pass
    Path(notes).write_text(json.dumps(seen))
    return notes


class Doubled(nn.Module):
    def __init__(self, notes: str) -> None:
        super().__init__()
        self.spy = Spy(notes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.fixture
def notes(lab: Lab, tmp_path: Path) -> Path:
    """Where the registered model writes what it saw."""
    path = tmp_path / "seen.json"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    mlflow.set_tracking_uri(lab.uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pytorch.log_model(
                Doubled(str(path)),
                name="model",
                signature=infer_signature(ROWS, ROWS),
                serialization_format="pickle",
                registered_model_name="pickled",
                pip_requirements=["torch"],
            )
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    path.unlink(missing_ok=True)
    return path


def test_nothing_runs_unless_it_is_allowed(lab: Lab, notes: Path) -> None:
    ran = command(lab.folder, "pickled", "--alias=dev", "--json", MLFLOW_TRACKING_URI=lab.uri)
    assert (ran.code, ran.result["error"]["kind"]) == (3, "unsafe")
    assert "--allow-pickle" in ran.result["error"]["hint"]
    assert not notes.exists()
    assert lab.alias("pickled", "dev") is None
    assert not Path(lab.folder, "model_repository").exists()


def test_what_is_allowed_runs_alone(lab: Lab, notes: Path) -> None:
    ran = command(
        lab.folder,
        *("pickled", "--alias=dev", "--allow-pickle", "--json"),
        MLFLOW_TRACKING_URI=lab.uri,
        AWS_SECRET_ACCESS_KEY=SECRET,
        MLFLOW_TRACKING_PASSWORD=SECRET,
    )
    assert (ran.code, ran.result["status"]) == (0, "promoted"), ran.stderr
    seen = json.loads(notes.read_text())
    assert seen["network"] == []
    assert not {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"} & set(seen["variables"])
    assert lab.alias("pickled", "dev") is not None
