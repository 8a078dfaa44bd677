"""A case: a model, a configuration, and what NVIDIA's backend says to it; models for many."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter.triton.releases import DEFAULT_RELEASE, release
from tests.integration.triton.triton_onnx_models import (
    add,
    config,
    entry,
    identity,
    model,
    node,
    tensor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnx import ModelProto


X, Y = entry("x", [4]), entry("y", [4])
NEWEST = release(DEFAULT_RELEASE)


@dataclass(frozen=True)
class Case:
    """A model, a configuration, the words of a refusal (or none), a request and its answer."""

    name: str
    model: ModelProto
    config: str
    refused: str = ""
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    fails: str = ""
    layout: Callable[[Path, ModelProto], None] | None = None


def simple(name: str, more: str = "", **options: Any) -> Case:
    """The identity of four numbers a row, with something more in its configuration."""
    return Case(name, identity(), config([X], [Y], more=more), **options)


def array(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def bytes_array(*values: bytes) -> np.ndarray:
    return np.array(values, dtype=np.object_).reshape(1, -1)


# ---- layouts on disk -------------------------------------------------------------------------


def in_directory(folder: Path, proto: ModelProto) -> None:
    """``model.onnx`` is a directory of the model and its external data."""
    inner = folder / "model.onnx"
    inner.mkdir()
    onnx.save(proto, inner / "model.onnx", save_as_external_data=True, size_threshold=0)


def external_data(folder: Path, proto: ModelProto) -> None:
    onnx.save(
        proto,
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )


def named(filename: str) -> Callable[[Path, ModelProto], None]:
    return lambda folder, proto: onnx.save(proto, folder / filename)


def broken(folder: Path, proto: ModelProto) -> None:
    (folder / "model.onnx").write_bytes(proto.SerializeToString()[:40])


# ---- models ----------------------------------------------------------------------------------


def matmul(declared: Any) -> ModelProto:
    """``y = x @ w`` with w of shape [4, 3]; the output is declared as told."""
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    return model(
        [node("MatMul", ["x", "w"], ["y"])],
        [tensor("x")],
        [tensor("y", declared)],
        initializers=[weights],
    )


def with_default() -> ModelProto:
    """``y = x + w`` where w is an input with a value of its own."""
    return model(
        [node("Add", ["x", "w"], ["y"])],
        [tensor("x"), tensor("w", [4])],
        [tensor("y")],
        initializers=[numpy_helper.from_array(np.full(4, 10, np.float32), "w")],
    )


def zipmap() -> ModelProto:
    keys = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    output = helper.make_value_info("y", helper.make_sequence_type_proto(keys))
    return model(
        [node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])],
        [tensor("x")],
        [output],
        domains=[("ai.onnx.ml", 3)],
    )


def sequence_output() -> ModelProto:
    return model(
        [node("SequenceConstruct", ["x"], ["y"])],
        [tensor("x")],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )


def reshaping(shape: Sequence[int]) -> ModelProto:
    """A reshape that only fits some batches: it fails while it runs."""
    target = numpy_helper.from_array(np.array(shape, np.int64), "shape")
    return model(
        [node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x")],
        [tensor("y", ["other", 2])],
        initializers=[target],
    )


def scalar_sum() -> ModelProto:
    return model(
        [node("ReduceSum", ["x"], ["y"], keepdims=0)], [tensor("x", [4])], [tensor("y", [])]
    )


def per_row_scalar() -> ModelProto:
    return model(
        [node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [tensor("x")],
        [tensor("y", ["batch"])],
        initializers=[numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )


def scalar_input() -> ModelProto:
    return model(
        [node("Mul", ["x", "s"], ["y"])],
        [tensor("x", [4]), tensor("s", [])],
        [tensor("y", [4])],
    )


def controlled() -> ModelProto:
    """``y = x * START``: a sequence control among the inputs."""
    return model(
        [node("Mul", ["x", "START"], ["y"])],
        [tensor("x"), tensor("START", ["batch", 1])],
        [tensor("y")],
    )


def control(name: str, kind: str = "fp32_false_true: [0, 1]") -> str:
    return (
        f'sequence_batching {{ control_input {{ name: "{name}" '
        f"control {{ kind: CONTROL_SEQUENCE_START {kind} }} }} }}"
    )


def two_inputs(shape: Any = ("batch", 4)) -> ModelProto:
    return add(shape)


A, B, Z = entry("a", [4]), entry("b", [4]), entry("z", [4])
ACCELERATE = "optimization {{ execution_accelerators {{ {} }} }}"


def accelerator(kind: str, name: str) -> str:
    return ACCELERATE.format(f'{kind}_execution_accelerator {{ name: "{name}" }}')


def level(number: int) -> str:
    return f"optimization {{ graph {{ level: {number} }} }}"


DATATYPE_VALUES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False, True, True]]),
    **{
        name: np.array([[0, 1, 2, 127]], np.dtype(name.lower()))
        for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
    },
    "FP16": np.array([[0, 1.5, -2, 6e4]], np.float16),
    "FP32": np.array([[0, 1.5, -2, 3e38]], np.float32),
    "FP64": np.array([[0, 1.5, -2, 1e300]], np.float64),
    "STRING": bytes_array(b"a", b"", "\u00e9\u4e2d".encode(), b"a b"),
}


def stacked(times: int) -> ModelProto:
    """``y`` is ``x`` so many times, one below the other: other rows than were given."""
    return model(
        [node("Concat", ["x"] * times, ["y"], axis=0)],
        [tensor("x", ("batch", 4))],
        [tensor("y", ("rows", 4))],
    )


def halved() -> ModelProto:
    """``y`` is every second row of ``x``."""
    return model(
        [node("Slice", ["x", "start", "end", "axis", "step"], ["y"])],
        [tensor("x", ("batch", 4))],
        [tensor("y", ("rows", 4))],
        initializers=[
            numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in (("start", 0), ("end", 2**31), ("axis", 0), ("step", 2))
        ],
    )
