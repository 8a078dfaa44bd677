"""Models whose process takes too long, takes too much, or says and leaves what it should not."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import infer_signature
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporter.build import isolated
from exporter.commands.export.pipeline import export
from exporter.commands.export.request import ExportRequest
from exporter.commands.export.result import ExportResult
from exporter.system.sandbox import Confinement
from tests.support.models import ROWS
from tests.support.registering import RegistryFixture

from .test_refused import model_of

pytestmark = pytest.mark.triton


class Acting:
    """Does something when it is unpickled."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return self.action, ()


class Doubled(nn.Module):
    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.acting = Acting(action)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def events() -> int:
    """The descriptor that the process writes its lines to: a pipe, but not stdout or stderr."""
    import os
    import stat

    for descriptor in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                return descriptor
        except OSError:
            continue
    raise LookupError


def sleeps() -> None:
    import time

    time.sleep(36_000)


def says_a_line_without_an_end() -> None:
    import os

    while True:
        os.write(events(), b"x" * 65_536)


def says_nonsense() -> None:
    import os

    os.write(events(), b'{"event": "end", "step": "promote", "seconds": "\x1b[31m"}\n')


def complains_without_an_end() -> None:
    import os

    for _ in range(4_000):
        os.write(2, b"complaint \x1b[31m" * 5_000)
    os.abort()


def takes_all_memory() -> None:
    bytearray(200 << 30)


def leaves_a_link() -> None:
    import os
    from pathlib import Path

    Path("built.json").symlink_to("/etc/passwd")
    os._exit(0)


def leaves_nonsense() -> None:
    import os
    from pathlib import Path

    Path("built.json").write_text("[" * 100_000)
    os._exit(0)


def register(lab: RegistryFixture, name: str, action: Callable[[], None]) -> None:
    """Log a module that acts when it is loaded, but not here."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    mlflow.set_tracking_uri(lab.uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pytorch.log_model(
                Doubled(action),
                name="model",
                signature=infer_signature(ROWS, ROWS),
                serialization_format="pickle",
                registered_model_name=name,
                pip_requirements=["torch"],
            )
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def exported(lab: RegistryFixture, name: str, **options: object) -> ExportResult:
    """Export with a process of its own for the model."""
    repository = str(lab.folder / "repository")
    given = {"timeout": 600.0, **options}
    return export(ExportRequest(name, "dev", tracking_uri=lab.uri, repository=repository, **given))


@pytest.mark.parametrize(
    ("action", "options", "kind", "said"),
    [
        (sleeps, {"timeout": 8.0}, "timeout", "did not end within 8 seconds"),
        (says_a_line_without_an_end, {}, "artifact", "a line without an end"),
        (says_nonsense, {}, "artifact", "an unexpected line"),
        (complains_without_an_end, {}, "artifact", "crashes the process"),
        (takes_all_memory, {"model_memory": 6 << 30}, None, "emory"),
        (leaves_a_link, {}, "artifact", "the model's process left no readable result"),
        (leaves_nonsense, {}, "artifact", "the model's process left no readable result"),
    ],
)
def test_pickles(
    lab: RegistryFixture,
    action: Callable[[], None],
    options: dict[str, object],
    kind: str | None,
    said: str,
) -> None:
    name = action.__name__.replace("_", "-")
    register(lab, name, action)
    result = exported(lab, name, allow_pickle=True, **options)
    assert result.error is not None
    assert (result.exit_code, said in result.error["message"]) == (3, True), result.error
    assert kind in (None, result.error["kind"])
    assert len(result.error["message"]) < 20_000
    assert "\x1b" not in result.error["message"]
    assert lab.alias(name, "dev") is None
    workspace = lab.folder / ".repository.stlab" / name
    assert [path.name for path in workspace.iterdir()] == ["lock"]
    if action is sleeps:
        # The process that was killed no longer holds the lock.
        again = exported(lab, name)
        assert (again.exit_code, (again.error or {})["kind"]) == (3, "unsafe")


def test_a_loop_that_does_not_end(lab: RegistryFixture) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(2**62), "times"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    node = helper.make_node("Loop", ["times", "go", "x"], ["y"], body=body)
    model = model_of([node], [None, 6], [None, 6], initializers=constants)
    # Without an example: MLflow would run the model on it.
    lab.register_onnx("loop", model, signature=infer_signature(ROWS, ROWS))
    result = exported(lab, "loop", timeout=8.0)
    assert (result.exit_code, (result.error or {})["kind"]) == (3, "timeout"), result.error


def test_more_features_than_there_is_memory(lab: RegistryFixture) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=2, max_depth=2).fit(ROWS, ROWS[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri(lab.uri)
        mlflow.xgboost.log_model(
            model,
            name="model",
            model_format="json",
            signature=infer_signature(ROWS, ROWS[:, 0]),
            registered_model_name="features",
            pip_requirements=["xgboost"],
        )
    (file,) = lab.artifact("features").rglob("model.json")
    content = json.loads(file.read_text())
    content["learner"]["learner_model_param"]["num_feature"] = "2000000000"
    file.write_text(json.dumps(content))
    result = exported(lab, "features", timeout=120.0, model_memory=6 << 30)
    assert result.exit_code == 3, result.error


def offers(monkeypatch: pytest.MonkeyPatch, offered: Confinement) -> None:
    """Let this machine offer less than it does."""
    monkeypatch.setattr(isolated, "confinement", lambda: offered)


def nothing() -> None:
    """A pickle that does no harm."""


def test_what_cannot_be_confined(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(lab, "harmless", nothing)
    lab.register_torch("plain", nn.Linear(6, 2).eval(), ROWS)
    offers(monkeypatch, Confinement(seccomp=True))
    refused = exported(lab, "harmless", allow_pickle=True)
    assert (refused.exit_code, (refused.error or {})["kind"]) == (5, "confinement")
    assert "--allow-pickle=unconfined" in (refused.error or {})["hint"]
    assert "pull" not in refused.seconds
    # What worked when it was tried out may fail later: nothing is loaded then either.
    offers(monkeypatch, Confinement("/bin/false", 0, seccomp=True))
    failed = exported(lab, "harmless", allow_pickle=True)
    assert (failed.exit_code, (failed.error or {})["kind"]) == (5, "confinement")
    offers(monkeypatch, Confinement(seccomp=True))
    for name, options in (
        ("harmless", {"allow_pickle": True, "unconfined": True}),
        ("plain", {}),
    ):
        result = exported(lab, name, **options)
        assert result.status == "promoted", result.error
        report = json.loads((lab.folder / "repository" / name / "1" / "report.json").read_text())
        assert any("confine" in note for note in report["parity"]["notes"])


def test_without_bubblewrap_landlock_is_enough(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = isolated.confinement()
    if not here.landlock:
        pytest.skip("this kernel has no Landlock")
    offers(monkeypatch, Confinement("", here.landlock, here.seccomp))
    register(lab, "landlocked", nothing)
    result = exported(lab, "landlocked", allow_pickle=True)
    assert result.status == "promoted", result.error
    report = json.loads((lab.folder / "repository/landlocked/1/report.json").read_text())
    assert not any("confine" in note for note in report["parity"]["notes"])
