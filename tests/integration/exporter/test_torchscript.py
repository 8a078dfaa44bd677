"""TorchScript: written, proven on the wire and served under the backend's own names."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.arrays import read_npz
from exporter.commands.export.result import ExportResult
from exporter.triton.model_config import parse
from tests.support.models import ROWS, Layers, times
from tests.support.registering import RegistryFixture

pytestmark = [
    pytest.mark.triton,
    # What torch says to everybody who loads a script; the exporter keeps it to itself.
    pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning"),
]


def proven(lab: RegistryFixture, name: str, **options: Any) -> ExportResult:
    result = lab.export(name, format="torchscript", **options)
    assert result.status == "promoted", result.error
    return result


def folder(lab: RegistryFixture, name: str) -> Path:
    return lab.folder / "repository" / name


def declared(lab: RegistryFixture, name: str) -> dict[str, tuple[str, list[int]]]:
    """What the repository's config says of every tensor."""
    config = parse((folder(lab, name) / "config.pbtxt").read_text(), where=name)
    assert (config.backend, config.default_model_filename) == ("pytorch", "model.pt")
    types = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return {
        entry.name: (types[entry.data_type].name.removeprefix("TYPE_"), list(entry.dims))
        for entry in (*config.input, *config.output)
    }


def served(
    lab: RegistryFixture, name: str, *inputs: np.ndarray[Any, Any]
) -> list[np.ndarray[Any, Any]]:
    """What the served file answers."""
    script = torch.jit.load(folder(lab, name) / "1" / "model.pt")
    answer = script(*map(torch.from_numpy, inputs))
    return [t.numpy() for t in (answer if isinstance(answer, tuple) else (answer,))]


def test_layers(lab: RegistryFixture) -> None:
    lab.register_torch("layers", Layers().eval(), ROWS)
    result = proven(lab, "layers")
    assert (result.bundle or {})["format"] == "torchscript"
    assert (result.parity or {})["batching"] == "dynamic"
    assert declared(lab, "layers") == {"INPUT__0": ("FP32", [6]), "OUTPUT__0": ("FP32", [3])}
    manifest = json.loads((folder(lab, "layers") / "1" / "manifest.json").read_text())
    assert manifest["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert manifest["names"]["INPUT__0"] == "x"
    with zipfile.ZipFile(folder(lab, "layers") / "1" / "model.pt") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    # Neither where the code of the model lies nor where that of torch does.
    for place in (Path(torch.__file__).parent, Path(__file__).parent, lab.folder):
        assert str(place).encode() not in content


def test_a_recurrent_model_with_a_scalar_per_row(lab: RegistryFixture) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.recurrent = nn.GRU(3, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.recurrent(x)[0][:, -1].sum(-1)

    model = Last().eval()
    series = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    lab.register_torch("recurrent", model, series)
    assert (proven(lab, "recurrent").parity or {})["batching"] == "dynamic"
    assert "reshape" in (folder(lab, "recurrent") / "config.pbtxt").read_text()
    for rows in (1, 3):
        given = series[:rows]
        with torch.no_grad():
            expected = model(torch.from_numpy(given)).numpy()
        np.testing.assert_allclose(served(lab, "recurrent", given)[0], expected, atol=1e-6)


def test_two_inputs_and_a_dict_out(lab: RegistryFixture) -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor, gate: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"product": x * gate, "best": (x - gate).argmax(1, keepdim=True)}

    gate = ROWS[:, ::-1].copy()
    lab.register_torch("named", Named().eval(), ROWS, gate)
    assert (proven(lab, "named").parity or {})["batching"] == "dynamic"
    manifest = json.loads((folder(lab, "named") / "1" / "manifest.json").read_text())
    names = {name: served_name for served_name, name in manifest["names"].items()}
    told = declared(lab, "named")
    assert sorted(told) == ["INPUT__0", "INPUT__1", "OUTPUT__0", "OUTPUT__1"]
    assert told[names["product"]] == ("FP32", [6])
    assert told[names["best"]] == ("INT64", [1])
    answers = served(lab, "named", ROWS[:1], gate[:1])
    place = int(names["product"].removeprefix("OUTPUT__"))
    np.testing.assert_array_equal(answers[place], ROWS[:1] * gate[:1])
    kept = read_npz(folder(lab, "named") / "1" / "samples.npz")
    assert any(key.endswith("INPUT__1") for key in kept)


def test_tokens_of_varying_number(lab: RegistryFixture) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(50, 8)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            places = torch.arange(tokens.shape[1], device=tokens.device)
            return (self.embedding(tokens) * places[None, :, None]).mean(1)

    tokens = np.random.default_rng(1).integers(0, 50, (4, 7))
    lab.register_torch("tokens", Pooled().eval(), tokens)
    assert (proven(lab, "tokens").parity or {})["batching"] == "dynamic"
    assert declared(lab, "tokens")["INPUT__0"] == ("INT64", [7])


def test_what_is_not_of_torch_is_refused(lab: RegistryFixture) -> None:
    lab.register_onnx("foreign", times(2.0), example=ROWS)
    result = lab.export("foreign", format="torchscript")
    assert (result.status, result.exit_code) == ("failed", 3)
    assert (result.error or {})["kind"] == "format"
    assert "--format onnx" in (result.error or {})["hint"]
    assert lab.alias("foreign") is None
    assert not folder(lab, "foreign").exists()
