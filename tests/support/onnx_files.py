"""Small ONNX files of the kinds that people log, as MLflow keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.sources.mlmodel import Field, MLModel
from exporter.sources.onnx import OnnxSource, open_source

Dims = Sequence[int | str | None]
ROWS = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)


def graph_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Dims],
    outputs: Mapping[str, Dims],
    constants: Mapping[str, Any] | None = None,
    kind: int = TensorProto.FLOAT,
) -> onnx.GraphProto:
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    return helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in outputs.items()],
        held,
    )


def model_of(
    graph: onnx.GraphProto, opset: int = 17, ir: int = 8, **domains: int
) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name.replace("_", "."), v) for name, v in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def logged(
    folder: Path,
    proto: onnx.ModelProto,
    *,
    inputs: tuple[Field, ...] = (),
    outputs: tuple[Field, ...] = (),
    example: Any = None,
) -> MLModel:
    """A logged model's folder, as far as the source reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, folder / "model.onnx")
    example_file = None
    if example is not None:
        example_file = folder / "input_example.json"
        example_file.write_text(json.dumps(example))
    return MLModel(folder, {"onnx": {"data": "model.onnx"}}, inputs, outputs, example_file, None)


def opened(folder: Path, proto: onnx.ModelProto, **more: Any) -> OnnxSource:
    return open_source(logged(folder, proto, **more), allow_pickle=False)
