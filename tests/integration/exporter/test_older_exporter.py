"""The older torch.onnx exporter, where the newer one cannot write a model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from exporter.sources.pytorch import program_source
from tests.support.registering import RegistryFixture

from .test_refused import Linear

pytestmark = pytest.mark.triton


def test_is_used_and_recorded(lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object, **__: object) -> None:
        raise RuntimeError("no decomposition for this operator")

    monkeypatch.setattr(program_source, "export_by_dynamo", unable)
    lab.register_torch("older", Linear().eval(), np.eye(6, dtype=np.float32))
    result = lab.export("older")
    assert result.status == "promoted", result.error
    assert result.parity is not None
    assert result.parity["batching"] == "dynamic"
    manifest = json.loads((lab.folder / "repository/older/1/manifest.json").read_text())
    assert manifest["converter"] == "torch.onnx torchscript"
