"""The script that a team writes without stlab: load, convert, compare once, write the file.

    python benchmarks/bare_export.py income --output model.onnx

It takes the version that the alias ``dev`` names from MLflow, writes it as ONNX with a symbolic
batch, and asks one ONNX Runtime session for the logged example's answer. It proves nothing about
other inputs, other batch sizes or the server, and knows neither configuration nor alias.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import torch

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--output", type=Path, default=Path("model.onnx"))
options = parser.parse_args()

uri = f"models:/{options.model}@dev"
model = mlflow.pytorch.load_model(uri)
logged = mlflow.models.Model.load(uri).load_input_example(uri)
(array,) = logged.values() if isinstance(logged, dict) else (logged,)
example = torch.from_numpy(array)

torch.onnx.export(
    model,
    (example,),
    options.output,
    dynamo=True,
    input_names=["input"],
    output_names=["output"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
)

session = onnxruntime.InferenceSession(options.output)
(answer,) = session.run(None, {"input": example.numpy()})
with torch.no_grad():
    expected = model(example).numpy()
np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)
print(f"{options.output}: {options.output.stat().st_size} bytes")
