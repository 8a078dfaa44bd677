"""Pickled models: not a line of theirs runs unless that is allowed, and then it is alone."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import cloudpickle
import mlflow
import pytest
import torch
from mlflow.models import infer_signature
from torch import nn

from tests.support.models import ROWS
from tests.support.registering import RegistryFixture
from tests.support.running import command

pytestmark = pytest.mark.triton
SECRET = "much-guarded"


class Spy:
    """Looks, when it is unpickled, for what it must not find, and is not quiet about it."""

    def __init__(self, notes: str) -> None:
        self.notes = notes

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return look_around, (self.notes,)


def look_around(notes: str) -> str:
    import os
    import socket
    import sys
    from pathlib import Path

    found = [name for name, value in os.environ.items() if "much-guarded" in value]
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
        except OSError:
            continue
        found.append(family.name)
    attempts = {
        "a file of the user": Path(notes).read_text,
        "the registry": (Path(notes).parent / "mlflow.db").read_bytes,
        "the exporter's environment": Path(f"/proc/{os.getppid()}/environ").read_bytes,
        # Opened, not written: where nothing is confined, nothing is damaged either.
        "a library": lambda: os.open(os.__file__, os.O_WRONLY),
        "a process of its own": lambda: os.fork() or os._exit(0),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        found.append(name)
    # Loading fails loudly where anything was within reach.
    if found:
        sys.stderr.write(f"within reach: {found}\n")
        os.abort()
    return notes


class Doubled(nn.Module):
    def __init__(self, notes: str) -> None:
        super().__init__()
        self.spy = Spy(notes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.fixture
def notes(lab: RegistryFixture) -> Path:
    """A file that the registered model looks for."""
    path = lab.folder / ".env"
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
    path.write_text("# much-guarded\n")
    return path


def test_nothing_runs_unless_it_is_allowed(lab: RegistryFixture, notes: Path) -> None:
    ran = command(lab.folder, "pickled", "--alias=dev", "--json", MLFLOW_TRACKING_URI=lab.uri)
    assert (ran.code, ran.result["error"]["kind"]) == (3, "unsafe")
    assert "--allow-pickle" in ran.result["error"]["hint"]
    assert "within reach" not in ran.stderr
    assert lab.alias("pickled", "dev") is None
    assert not Path(lab.folder, "model_repository").exists()


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("with_bubblewrap", [True, False])
def test_what_is_allowed_runs_alone(
    lab: RegistryFixture, tmp_path: Path, with_bubblewrap: bool
) -> None:
    ran = command(
        lab.folder,
        *(
            "pickled",
            "--alias=dev",
            "--allow-pickle",
            "--json",
            "--repository",
            str(tmp_path / "r"),
        ),
        MLFLOW_TRACKING_URI=lab.uri,
        AWS_SECRET_ACCESS_KEY=SECRET,
        MLFLOW_TRACKING_PASSWORD=SECRET,
        PATH=os.environ["PATH"] if with_bubblewrap else str(tmp_path),
    )
    assert (ran.code, ran.result["status"]) == (0, "promoted"), ran.stderr
    assert lab.alias("pickled", "dev") is not None


@pytest.mark.usefixtures("notes")
def test_what_runs_unconfined_reaches_what_the_user_does(
    lab: RegistryFixture, tmp_path: Path
) -> None:
    """What the test above finds nothing of would be seen."""
    ran = command(
        lab.folder,
        *("pickled", "--alias=dev", "--allow-pickle=unconfined", "--json"),
        *("--repository", str(tmp_path / "repository")),
        MLFLOW_TRACKING_URI=lab.uri,
        MLFLOW_TRACKING_PASSWORD=SECRET,
    )
    message = ran.result["error"]["message"]
    assert ran.code == 3, ran.stderr
    for found in ("AF_INET", "a file of the user", "the registry", "a process of its own"):
        assert found in message
    # Even then: no secret of the command's own environment.
    assert "MLFLOW_TRACKING_PASSWORD" not in message
    assert "the exporter's environment" not in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["--allow-pickle=all"],
        ["--unconfined"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--model-memory", "8X"],
        ["--model-memory", "1M"],
    ],
)
def test_bounds_that_are_none(tmp_path: Path, arguments: list[str]) -> None:
    ran = command(tmp_path, "pickled", "--alias=dev", "--json", *arguments)
    assert (ran.code, ran.result["error"]["kind"]) == (2, "usage")
