"""ONNX files that people register, each with one thing that a server may not take as it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import numpy as np
import onnx
import onnxruntime
import skl2onnx
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from tests.support.onnx_files import Dims, graph_of, model_of

from .comparing import Array, Near, RefusedError

__all__ = ["ZOO", "OnnxFile"]

_RANDOM = np.random.default_rng(11)
X = _RANDOM.normal(size=(4, 6)).astype(np.float32)
WIDE = _RANDOM.normal(size=(6, 200)).astype(np.float32)


@dataclass(frozen=True)
class OnnxFile:
    """One file.

    Attributes:
        name: What it is registered as.
        make: Makes it.
        example: What it is logged with, by the file's names.
        served: The names by which inputs are served, where they are others.
        beside: Whether its constants lie in a file beside it.
        takes: The only number of rows that it takes; 0 for any.
        refused: A word of the reason for which it must be refused; empty where it is servable.
        batched: Whether its rows may be batched.
    """

    name: str
    make: Callable[[], onnx.ModelProto]
    example: Mapping[str, Array]
    served: tuple[str, ...] = ()
    beside: bool = False
    takes: int = 0
    refused: str = ""
    batched: bool = True
    near: ClassVar[Near] = Near(1e-5, 1e-5)

    @property
    def servable(self) -> bool:
        return not self.refused

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(self.make().SerializeToString())

    def register(self) -> None:
        """Log it as its author would."""
        self._written(mlflow.onnx.log_model, name="model", registered_model_name=self.name)

    def logged(self, folder: Path) -> Path:
        """Write what would be logged, and return its file."""
        self._written(mlflow.onnx.save_model, path=str(folder))
        return folder / "model.onnx"

    def rows(self, count: int) -> dict[str, Array]:
        """Return as many fresh rows, by the served names; of words those of the example."""
        random = np.random.default_rng(count)
        names = self.served or tuple(self.example)
        return {
            name: array[random.integers(0, len(array), count)]
            if array.dtype == object
            else random.normal(size=(count, *array.shape[1:])).astype(array.dtype)
            for name, array in zip(names, self.example.values(), strict=True)
        }

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return what ONNX Runtime says; of a dictionary for each row, its values by class.

        Raises:
            RefusedError: It takes another number of rows.
        """
        if self.takes not in {0, len(next(iter(inputs.values())))}:
            raise RefusedError(f"{self.name} takes {self.takes} rows")
        return by_class(
            self.session.run(None, dict(zip(self.example, inputs.values(), strict=True)))
        )

    def _written(self, write: Callable[..., Any], **where: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(
                self.make(),
                input_example=dict(self.example),
                pip_requirements=["onnx"],
                save_as_external_data=self.beside,
                **where,
            )


def by_class(answers: list[Any]) -> list[Array]:
    """Return answers of ONNX Runtime with the values of dictionaries in the order of their keys."""
    return [
        np.array([[row[key] for key in sorted(row)] for row in answer])
        if isinstance(answer, list) and answer and isinstance(answer[0], dict)
        else np.asarray(answer)
        for answer in answers
    ]


def external() -> onnx.ModelProto:
    """Constants of more than a kilobyte, which MLflow writes beside the file by default."""
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 200]}, {"wide": WIDE}))


def fixed() -> onnx.ModelProto:
    """Two rows, as a converter fixes them that was given an example of two."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    return model_of(graph_of([node], {"x": [2, 6]}, {"y": [2, 6]}))


def of_five() -> onnx.ModelProto:
    """Promises any number of rows, and takes five."""
    node = helper.make_node("MatMul", ["mixing", "x"], ["y"])
    return model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}, {"mixing": WIDE[:5, :5]}))


def newer() -> onnx.ModelProto:
    """An opset and an IR version that no release reads yet, with an operator that changed in it."""
    nodes = [helper.make_node("Celu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    return model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}), opset=28, ir=14)


def centred() -> onnx.ModelProto:
    """Takes the mean of all rows from each."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}))


def odd_names() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["house size (m²)", "w"], ["inner"]),
        helper.make_node("Sigmoid", ["inner"], ["the price"]),
        helper.make_node("Neg", ["the price"], ["head/loss::y:0"]),
    ]
    made: dict[str, Dims] = {"the price": ["n", 2], "head/loss::y:0": ["n", 2]}
    return model_of(graph_of(nodes, {"house size (m²)": ["n", 6]}, made, {"w": WIDE[:, :2]}))


def dictionaries() -> onnx.ModelProto:
    """A classifier as skl2onnx writes it by default: with a dictionary for each row."""
    rows = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)
    labels = np.array(["poor", "fair", "good"])[np.digitize(rows.sum(1), [-1, 1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return skl2onnx.to_onnx(LogisticRegression().fit(rows, labels), rows[:1])


def words() -> onnx.ModelProto:
    """Codes of words, of which those that it does not know have one as well."""
    node = helper.make_node(
        "LabelEncoder", ["region"], ["code"], domain="ai.onnx.ml",
        keys_strings=["north", "south", "Zürich"], values_int64s=[3, 5, 7], default_int64=-1,
    )  # fmt: skip
    given = helper.make_tensor_value_info("region", TensorProto.STRING, [None, 1])
    made = helper.make_tensor_value_info("code", TensorProto.INT64, [None, 1])
    return model_of(helper.make_graph([node], "graph", [given], [made]), ai_onnx_ml=2)


def noisy() -> onnx.ModelProto:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], scale=0.01),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    return model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}))


def training() -> onnx.ModelProto:
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])
    held = {"ratio": np.float32(0.5), "training": np.array(True)}
    return model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}, held))


def parts() -> onnx.ModelProto:
    """A sequence of tensors, which no server has."""
    node = helper.make_node("SplitToSequence", ["x"], ["y"], axis=1, keepdims=1)
    graph = graph_of([node], {"x": ["n", 6]}, {})
    kind = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n", 1])
    graph.output.append(kind)
    return model_of(graph)


REGIONS = np.array([["north"], ["Zürich"], ["elsewhere"]], dtype=object)

ZOO: tuple[OnnxFile, ...] = (
    OnnxFile("external-data", external, {"x": X}, beside=True),
    OnnxFile("fixed-batch", fixed, {"x": X[:2]}, takes=2, batched=False),
    OnnxFile("of-five", of_five, {"x": WIDE[:5, :6]}, takes=5, batched=False),
    OnnxFile("newer-opset", newer, {"x": X}),
    OnnxFile("centred", centred, {"x": X}, batched=False),
    OnnxFile("odd-names", odd_names, {"house size (m²)": X}, served=("house_size_m",)),
    OnnxFile("dictionaries", dictionaries, {"X": X}),
    OnnxFile("words", words, {"region": REGIONS}),
    # What must not be served.
    OnnxFile("noisy", noisy, {"x": X}, refused="draws numbers"),
    OnnxFile("in-training", training, {"x": X}, refused="training mode"),
    OnnxFile("parts", parts, {"x": X}, refused="seq(tensor(float))"),
)
