"""Lower precisions: smaller files whose answers stay within a budget of their own, or nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.config import parse
from tests.zoo.layers import Residuals

from .registering import Lab

pytestmark = pytest.mark.triton
X = np.random.default_rng(3).normal(size=(8, 64)).astype(np.float32)
IMAGES = np.random.default_rng(4).normal(size=(8, 3, 8, 8)).astype(np.float32)


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


def manifest(lab: Lab, name: str) -> Any:
    return json.loads((lab.folder / "repository" / name / "1" / "manifest.json").read_text())


def test_half_of_the_size(lab: Lab) -> None:
    lab.register_torch("half", mlp(), X)
    whole = lab.export("half", "dev", repository="whole")
    assert whole.status == "promoted", whole.error
    result = lab.export("half", precision="fp16")
    assert result.status == "promoted", result.error
    sizes = [
        (lab.folder / where / "half/1/model.onnx").stat().st_size
        for where in ("whole", "repository")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    config = parse((lab.folder / "repository/half/config.pbtxt").read_text(), where="half")
    kinds = [entry.data_type for entry in (*config.input, *config.output)]
    assert kinds == [11, 11], "float32 at the borders"
    assert manifest(lab, "half")["precision"] == "fp16"


def test_what_overflows_keeps_float32(lab: Lab) -> None:
    lab.register_torch("overflowing", Overflowing().eval(), X)
    result = lab.export("overflowing", precision="fp16")
    assert result.status == "promoted", result.error
    assert manifest(lab, "overflowing")["settings"]["precision"] == "fp16"


def test_int8_is_the_same_bundle_again(lab: Lab) -> None:
    torch.manual_seed(0)
    lab.register_torch("images", Residuals().eval(), IMAGES)
    first = lab.export("images", "dev", precision="int8", repository="one")
    second = lab.export("images", precision="int8", repository="two")
    for result in (first, second):
        assert result.status == "promoted", result.error
    assert (first.bundle or {})["sha256"] == (second.bundle or {})["sha256"]
    assert (first.parity or {})["max_abs_error"] > 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_torchscript_has_the_model_s_own_types(lab: Lab, precision: str) -> None:
    from exporter.errors import UsageError

    with pytest.raises(UsageError, match="torchscript"):
        lab.export("half", format="torchscript", precision=precision)
