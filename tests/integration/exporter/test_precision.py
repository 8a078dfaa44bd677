"""Lower precisions: smaller files whose answers stay within a budget of their own, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporter.commands.export.result import ExportResult
from exporter.errors import UsageError
from exporter.triton.model_config import parse
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton

X = np.random.default_rng(3).normal(size=(8, 64)).astype(np.float32)
IMAGES = np.random.default_rng(4).normal(size=(16, 3, 8, 8)).astype(np.float32)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 5)).eval()


class Overflowing(nn.Module):
    """Something inside is larger than any number of 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = (x * 1e6).square().sum(-1, keepdim=True)
        return self.layer(x) * (large * 1e-14)


class Classifier(nn.Module):
    """Convolutions with batch normalisation; it answers scores and the class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.layers(x)
        return {"scores": scores, "class": scores.argmax(1)}


class TwoScales(nn.Module):
    """A regression of one large input and a small one, both of which count."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.layer.weight.data[:] = torch.tensor([[1e-6, 1e2]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def promoted(
    lab: RegistryFixture, name: str, alias: str = "staging", **options: Any
) -> ExportResult:
    result = lab.export(name, alias, **options)
    assert result.status == "promoted", result.error
    return result


def read(lab: RegistryFixture, name: str, file: str, where: str = "repository") -> Any:
    return json.loads((lab.folder / where / name / "1" / file).read_text())


def graph_of(lab: RegistryFixture, name: str) -> onnx.GraphProto:
    return onnx.load(lab.folder / "repository" / name / "1" / "model.onnx").graph


def test_float16_has_half_of_the_size_and_float32_at_its_borders(lab: RegistryFixture) -> None:
    lab.register_torch("half", mlp(), X)
    whole = promoted(lab, "half", "dev", repository="whole")
    result = promoted(lab, "half", precision="fp16")
    sizes = [
        (lab.folder / where / "half/1/model.onnx").stat().st_size
        for where in ("whole", "repository")
    ]
    assert sizes[1] < 0.55 * sizes[0]
    config = parse((lab.folder / "repository/half/config.pbtxt").read_text(), where="half")
    kinds = [entry.data_type for entry in (*config.input, *config.output)]
    assert kinds == [11, 11], "float32 at the borders"
    assert (result.parity or {})["max_abs_error"] > (whole.parity or {})["max_abs_error"]
    manifest = read(lab, "half", "manifest.json")
    assert manifest["precision"] == "fp16"
    assert manifest["reduced"]["kept_float32"] == []
    measured = read(lab, "half", "report.json")["parity"]["precision"]
    assert measured["bytes"] == {"fp32": sizes[0], "fp16": sizes[1]}
    assert set(measured["milliseconds"]) == {"fp32", "fp16"}


def test_what_overflows_keeps_float32_and_is_named(lab: RegistryFixture) -> None:
    lab.register_torch("overflowing", Overflowing().eval(), X)
    promoted(lab, "overflowing", precision="fp16")
    kept = read(lab, "overflowing", "manifest.json")["reduced"]["kept_float32"]
    operators = {n.name: n.op_type for n in graph_of(lab, "overflowing").node}
    assert {operators[name] for name in kept} >= {"ReduceSum", "Mul"}
    assert not {"Gemm", "MatMul"} & {operators[name] for name in kept}
    notes = " ".join(read(lab, "overflowing", "report.json")["parity"]["notes"])
    assert "too large for float16" in notes
    assert kept[0] in notes


def test_int8_of_a_classifier_agrees_on_the_class(lab: RegistryFixture) -> None:
    lab.register_torch("images", Classifier().eval(), IMAGES)
    first = promoted(lab, "images", precision="int8")
    assert (first.parity or {})["batching"] == "dynamic"
    assert {n.op_type for n in graph_of(lab, "images").node} >= {"QuantizeLinear"}
    report = read(lab, "images", "report.json")["parity"]
    scores, label = report["outputs"]
    assert scores["rows"] > 10, "rows whose class the reference decides"
    assert label["rows"] > 40, "every row of every case"
    assert scores["others"] + label["others"] <= 2
    run = str(first.report).split("/")[1]
    page = Path(lab.client.download_artifacts(run, "report.html", str(lab.folder)))
    assert "int8 compared with fp32" in page.read_text()
    # The same again, of the same version with the same settings.
    for tag in ("stlab.bundle.settings", "stlab.parity"):
        lab.client.delete_model_version_tag("images", "1", tag)
    again = promoted(lab, "images", "dev", precision="int8", repository="again")
    assert (again.bundle or {})["reused"] is False
    assert (again.bundle or {})["sha256"] == (first.bundle or {})["sha256"]
    # Its samples are replayed with the budgets of its precision.
    to_prod = promoted(lab, "images", "prod", allow_manual=True, repository="again")
    assert (to_prod.bundle or {})["reused"] is True


def test_int8_that_ruins_a_model_is_refused(lab: RegistryFixture) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 2)) * [1e6, 1e-2]
    lab.register_torch("scales", TwoScales().eval(), rows.astype(np.float32))
    before = lab.repository_bytes()
    result = lab.export("scales", precision="int8")
    assert (result.status, result.exit_code) == ("failed", 3)
    error = result.error or {}
    assert error["kind"] == "precision"
    assert "loses too much in node_" in error["message"]
    assert "times its budget" in error["message"]
    assert "--precision fp16" in error["hint"]
    assert lab.repository_bytes() == before
    assert lab.alias("scales") is None
    promoted(lab, "scales")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_torchscript_has_the_model_s_own_types(lab: RegistryFixture, precision: str) -> None:
    with pytest.raises(UsageError, match="torchscript"):
        lab.export("half", format="torchscript", precision=precision)
