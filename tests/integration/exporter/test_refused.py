"""Models that must not be promoted: exit 3, the alias unmoved, the repository as before."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mlflow.models import infer_signature
from onnx import TensorProto, helper
from torch import nn

from tests.support.pt2_archives import MODEL, mixed_program, save, write
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton

ROWS = np.random.default_rng(7).normal(size=(4, 6)).astype(np.float32)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Dropout(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.layer(x), 0.2, training=self.training)


class BatchNorm(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x))


class Noise(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + 1e-2 * torch.randn_like(x[:, :3])


class Counter(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x) + self.calls


class HidesNaN(nn.Module):
    """ONNX Runtime's MaxPool drops a NaN that torch's passes on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool1d(torch.log(x)[:, None, :], 3)[:, 0]


@pytest.fixture(scope="module", autouse=True)
def promoted(lab: RegistryFixture) -> None:
    """A good version that is served throughout."""
    lab.register_torch("good", Linear().eval(), ROWS)
    result = lab.export("good")
    assert result.status == "promoted", result.error


def refused(lab: RegistryFixture, name: str, words: str, **options: object) -> None:
    before = lab.repository_bytes()
    result = lab.export(name, **options)
    assert result.status == "failed"
    assert result.error is not None
    assert result.exit_code == 3, result.error
    assert words in result.error["message"], result.error["message"]
    assert result.error["hint"]
    assert lab.alias(name) is None
    assert lab.repository_bytes() == before
    assert result.parity is None or not result.parity["passed"]
    tags = lab.client.get_model_version(name, "1").tags
    assert tags["stlab.parity"] == "failed"


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("dropout-training", lambda: Dropout().train(), "training mode"),
        ("norm-training", lambda: BatchNorm().train(), "training mode"),
        ("noise", lambda: Noise().eval(), "not deterministic"),
        ("counter", lambda: Counter().eval(), "changes its own state"),
    ],
)
def test_torch_model_that_is_no_function(
    lab: RegistryFixture, name: str, make: Callable[[], nn.Module], words: str
) -> None:
    module = make()
    lab.register_torch(name, module, ROWS, signature=infer_signature(ROWS, ROWS[:, :3]))
    refused(lab, name, words)


def test_nan_that_conversion_hides(lab: RegistryFixture) -> None:
    lab.register_torch("hides-nan", HidesNaN().eval(), ROWS)
    refused(lab, "hides-nan", "NaN")


@pytest.mark.parametrize(
    ("name", "signature", "words"),
    [
        ("wrong-output-shape", infer_signature(ROWS, ROWS), "output"),
        ("wrong-output-type", infer_signature(ROWS, ROWS[:, :3].astype("f8")), "float64"),
        (
            "too-many-outputs",
            infer_signature(ROWS, {"a": ROWS[:, :3], "b": ROWS[:, :3]}),
            "promises 2 output",
        ),
    ],
)
def test_signature_that_does_not_fit(
    lab: RegistryFixture, name: str, signature: object, words: str
) -> None:
    lab.register_torch(name, Linear().eval(), ROWS, signature=signature)
    refused(lab, name, words)


def test_renamed_output_of_a_dict(lab: RegistryFixture) -> None:
    class Named(Linear):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"score": self.layer(x)}

    signature = infer_signature(ROWS, {"probability": ROWS[:, :3]})
    lab.register_torch("renamed", Named().eval(), ROWS, signature=signature)
    refused(lab, "renamed", "probability")


def test_pt2_with_code_in_its_sample_inputs(lab: RegistryFixture, tmp_path: Path) -> None:
    lab.register_torch("trap", Linear().eval(), ROWS)
    archive = lab.artifact("trap") / "data" / "model.pt2"
    fired = tmp_path / "fired"
    _poison(archive, fired)
    refused(lab, "trap", "would run code")
    assert not fired.exists()


def test_pt2_with_code_in_a_constant_input(lab: RegistryFixture, tmp_path: Path) -> None:
    """Torch prints it into the source of a guard, and executes that."""
    lab.register_torch("constant", Linear().eval(), ROWS)
    archive = lab.artifact("constant") / "data" / "model.pt2"
    fired = tmp_path / "fired"
    text = f"""same' and open("{fired}", "w").close() or '"""
    records = save(mixed_program(), tmp_path / "model.pt2")
    graph = records[MODEL].replace(b'"same"', json.dumps(text).encode())
    write(archive, {**records, MODEL: graph})
    refused(lab, "constant", "could become code")
    assert not fired.exists()


def test_truncated_pt2(lab: RegistryFixture) -> None:
    lab.register_torch("cut", Linear().eval(), ROWS)
    archive = lab.artifact("cut") / "data" / "model.pt2"
    archive.write_bytes(archive.read_bytes()[:-200])
    refused(lab, "cut", "cannot be read")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_onnx(lab: RegistryFixture, damage: str) -> None:
    name = f"onnx-{damage}"
    lab.register_onnx(name, linear_onnx(), example=ROWS)
    path = lab.artifact(name) / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-40], "garbage": b"\x00\xff" * 50, "empty": b""}[damage])
    refused(lab, name, "ONNX file")


def test_onnx_newer_than_the_release_is_lowered(lab: RegistryFixture) -> None:
    lab.register_onnx("newer", linear_onnx(opset=21, ir=10), example=ROWS)
    result = lab.export("newer", triton_release="23.11", repository="lowered")
    assert result.status == "promoted", result.error
    proto = onnx.load(lab.folder / "lowered" / "newer" / "1" / "model.onnx")
    (opset,) = (entry.version for entry in proto.opset_import if entry.domain == "")
    assert opset <= 19


def test_onnx_outputs_against_the_signature(lab: RegistryFixture) -> None:
    signature = infer_signature({"x": ROWS}, {"y": ROWS[:, :3], "z": ROWS[:, :3]})
    lab.register_onnx("onnx-missing", linear_onnx(), signature=signature)
    refused(lab, "onnx-missing", "promises 2 output")
    signature = infer_signature({"x": ROWS}, {"renamed": ROWS[:, :3]})
    lab.register_onnx("onnx-renamed", linear_onnx(), signature=signature)
    refused(lab, "onnx-renamed", "renamed")


def test_random_onnx(lab: RegistryFixture) -> None:
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["noise"], low=0.0, high=0.01),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    lab.register_onnx("onnx-noise", model_of(nodes, [None, 6], [None, 6]), example=ROWS)
    refused(lab, "onnx-noise", "not deterministic")


def test_batching_required_of_rows_that_mix(lab: RegistryFixture) -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    lab.register_torch("must-batch", Mean().eval(), ROWS)
    refused(lab, "must-batch", "cannot be batched", batching="require")


def test_failure_leaves_a_run_with_the_reason(lab: RegistryFixture) -> None:
    client = lab.client
    experiment = client.get_experiment_by_name("stlab-export")
    runs = client.search_runs([experiment.experiment_id], "params.model = 'noise'")
    assert [run.info.status for run in runs] == ["FAILED"]
    names = {entry.path for entry in client.list_artifacts(runs[0].info.run_id)}
    assert names == {"report.html", "report.json"}


def linear_onnx(opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    weight = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [None, 6],
        [None, 3],
        opset=opset,
        ir=ir,
        initializers=[onnx.numpy_helper.from_array(weight, "w")],
    )


def model_of(
    nodes: list[onnx.NodeProto],
    x: list[int | None],
    y: list[int | None],
    *,
    opset: int = 17,
    ir: int = 8,
    initializers: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [d or "n" for d in x])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [d or "n" for d in y])],
        initializers or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def _poison(archive: Path, fired: Path) -> None:
    """Put a pickle that creates a file in place of the sample inputs."""
    pickle = f"cpathlib\nPath\n(S'{fired}'\ntR.".encode()
    trap = (
        b"cbuiltins\neval\n(S\"__import__('pathlib').Path('%s').touch()\"\ntR."
        % str(fired).encode()
    )
    assert pickle != trap
    with zipfile.ZipFile(archive) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as new:
        for name, content in entries.items():
            new.writestr(name, trap if name.endswith("sample_inputs/model.pt") else content)


def test_clock_that_logging_froze(lab: RegistryFixture) -> None:
    class Clock(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + time.time()

    lab.register_torch("clock", Clock().eval(), ROWS)
    refused(lab, "clock", "reads the clock")
