"""Real pt2 archives, and the same ones edited as a hostile author would."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODEL = "models/model.json"


class Mixed(nn.Module):
    """Uses what an archive can describe: a dict of inputs, a constant, a branch and a size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.GELU(approximate="tanh"))
        self.register_buffer("scale", torch.ones(3))

    def forward(self, batch: dict[str, torch.Tensor], mode: str = "same") -> dict[str, Any]:
        x = self.layers(batch["x"]) * self.scale + torch.tensor([1.0, 2.0, 3.0])
        y = torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,))
        return {"y": y.reshape(-1), "z": [x.sum(1), batch["w"]]}


def mixed_program() -> torch.export.ExportedProgram:
    """Return a program with a variable size, a dict of inputs and a string as constant input."""
    rows = torch.export.Dim("rows", min=2, max=512)
    example = {"x": torch.arange(12.0).reshape(4, 3), "w": torch.ones(4, dtype=torch.int64)}
    shapes = {"batch": {"x": {0: rows}, "w": {0: rows}}, "mode": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what its own tracing does
        return torch.export.export(Mixed().eval(), (example, "same"), dynamic_shapes=shapes)


def save(program: torch.export.ExportedProgram, path: Path) -> dict[str, bytes]:
    """Write an archive and return its entries by name."""
    torch.export.save(program, path)
    return entries(path)


def entries(path: Path) -> dict[str, bytes]:
    """Return the entries of an archive, as torch reads them."""
    reader = torch._C.PyTorchFileReader(str(path))
    return {name: reader.get_record(name) for name in reader.get_all_records()}


def write(path: Path, records: Mapping[str, bytes]) -> Path:
    """Write an archive of these entries."""
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in records.items():
        if not name.startswith(".data/") and name != "version":
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return path


def with_graph(records: Mapping[str, bytes], graph: Any) -> dict[str, bytes]:
    """Return the entries with another description of the program."""
    return {**records, MODEL: json.dumps(graph).encode()}


def pickled(value: object) -> bytes:
    """Return a value as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
