"""Models for a real tritonserver, written into a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from triton_client.types import DATATYPES, config_datatype

if TYPE_CHECKING:
    from pathlib import Path

MOST_ROWS = 8
RANKS = range(1, 6)
# This server's python backend has no bfloat16, which numpy lacks as well.
ECHOED = {
    f"{datatype}-{rank}": (datatype, rank)
    for datatype in DATATYPES
    if datatype != "BF16"
    for rank in RANKS
}
"""The tensors of the echo model, by name; the wire's shapes have at least one dimension."""

_DOUBLING = f"""
name: "doubling"
backend: "onnxruntime"
max_batch_size: {MOST_ROWS}
input {{ name: "x" data_type: TYPE_FP32 dims: [3] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [3] }}
instance_group {{ kind: KIND_CPU count: 1 }}
dynamic_batching {{ max_queue_delay_microseconds: 200 }}
default_model_filename: "model.onnx"
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value {{ string_value: "1" }} }}
"""
_ECHO = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [utils.InferenceResponse(same(request.inputs())) for request in requests]

def same(tensors):
    return [utils.Tensor(tensor.name(), tensor.as_numpy()) for tensor in tensors]
"""


def doubling() -> bytes:
    """Return y = x + x over [n, 3], as an ONNX file."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "doubling", tensors[:1], tensors[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def place_doubling(root: Path) -> None:
    """Add ``doubling``, with requests batched together."""
    place(root, "doubling", _DOUBLING, "model.onnx", doubling())


def place_echo(root: Path) -> None:
    """Add ``echo``: any of :data:`ECHOED` in, the same out under the same names."""
    config = ['name: "echo"', 'backend: "python"', "max_batch_size: 0"]
    for name, (datatype, rank) in ECHOED.items():
        dims = ", ".join(["-1"] * rank)
        tensor = f'name: "{name}" data_type: {config_datatype(datatype)} dims: [{dims}]'
        config += [f"input {{ {tensor} optional: true }}", f"output {{ {tensor} }}"]
    config.append("instance_group { kind: KIND_CPU count: 1 }")
    place(root, "echo", "\n".join(config), "model.py", _ECHO.encode())


def place(root: Path, name: str, config: str, filename: str, content: bytes) -> None:
    """Add a model of one version."""
    version = root / name / "1"
    version.mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(config)
    (version / filename).write_bytes(content)
