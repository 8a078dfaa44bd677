"""Small models whose answers tell which version gave them."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

ROWS = np.random.default_rng(9).normal(size=(4, 6)).astype(np.float32)


def times(factor: float, *, width: int = 6, weights: int = 0) -> onnx.ModelProto:
    """An ONNX model that multiplies; ``weights`` float32 numbers more make its file larger."""
    constants = [numpy_helper.from_array(np.full(width, factor, np.float32), "factor")]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    if weights:
        ballast = np.random.default_rng(0).normal(size=weights).astype(np.float32)
        constants.append(numpy_helper.from_array(ballast, "ballast"))
        nodes = [
            helper.make_node("ReduceMin", ["ballast"], ["least"], keepdims=0),
            helper.make_node("Mul", ["x", "factor"], ["product"]),
            helper.make_node("Max", ["product", "least"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Layers(nn.Module):
    """A small network."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
