"""What NVIDIA's onnxruntime backend says to a configuration, this one says too.

Every row of the tables is a model, a configuration and the verdict that NVIDIA's backend of
release 24.10 gives on a CPU: it loads, it is refused with these words, or it answers this.
"""

from __future__ import annotations

import dataclasses
import gc
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper
from triton_onnx_models import (
    DATATYPES,
    add,
    config,
    entry,
    identity,
    model,
    node,
    parameter,
    tensor,
)
from tritonclient.utils import InferenceServerException

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.server import TritonServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnx import ModelProto

    from exporter.triton.runtime import Runtime

pytestmark = pytest.mark.triton

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


ANSWERS = [
    *(
        simple(
            f"file-{number}",
            f'default_model_filename: "{filename}"',
            layout=named(filename),
            inputs={"x": array(2, 4)},
            outputs={"y": array(2, 4)},
        )
        for number, filename in enumerate(("my model.onnx", "it's.onnx", "a;$(exit 1)&b.onnx"))
    ),
    Case(
        "more-rows-than-asked",
        stacked(2),
        config([X], [Y]),
        inputs={"x": array(2, 4)},
        outputs={"y": array(2, 4)},
    ),
    Case(
        "fewer-rows-than-asked",
        halved(),
        config([X], [Y]),
        inputs={"x": array(4, 4)},
        fails="expected batch size of atleast 4 in model output, got 2",
    ),
    Case(
        "output-named-twice",
        identity(),
        config([X], [Y, Y]),
        inputs={"x": array(1, 4)},
        outputs={"y": array(1, 4)},
    ),
    *(
        Case(
            f"identity-{name.lower()}",
            identity(name),
            config([entry("x", [4], name)], [entry("y", [4], name)]),
            inputs={"x": value},
            outputs={"y": value},
        )
        for name, value in DATATYPE_VALUES.items()
    ),
    Case(
        "strings-that-are-no-text",
        identity("STRING"),
        config([entry("x", [4], "STRING")], [entry("y", [4], "STRING")]),
        inputs={"x": bytes_array(b"\xff\xfe", b"ok", b"\x80mid\xc3", b"'quoted'")},
        outputs={"y": bytes_array(b"\xff\xfe", b"ok", b"\x80mid\xc3", b"'quoted'")},
    ),
    Case(
        "strings-end-at-a-nul",
        identity("STRING"),
        config([entry("x", [2], "STRING")], [entry("y", [2], "STRING")], max_batch_size=0).replace(
            "[2]", "[-1, 4]"
        ),
        inputs={"x": bytes_array(b"a\0b", b"", b"c", b"\0")},
        outputs={"y": bytes_array(b"a", b"", b"c", b"")},
    ),
    simple("rows", inputs={"x": array(8, 4)}, outputs={"y": array(8, 4)}),
    Case(
        "no-batching",
        identity(),
        config([entry("x", [-1, 4])], [entry("y", [-1, 4])], max_batch_size=0),
        inputs={"x": array(3, 4)},
        outputs={"y": array(3, 4)},
    ),
    Case(
        "fixed-shape",
        identity(shape=[2, 4]),
        config([entry("x", [2, 4])], [entry("y", [2, 4])], max_batch_size=0),
        inputs={"x": array(2, 4)},
        outputs={"y": array(2, 4)},
    ),
    Case(
        "empty",
        identity(shape=["batch", "n"]),
        config([entry("x", [-1])], [entry("y", [-1])]),
        inputs={"x": np.zeros((2, 0), np.float32)},
        outputs={"y": np.zeros((2, 0), np.float32)},
    ),
    Case(
        "number-for-variable-input",
        identity(shape=["batch", "n"]),
        config([X], [entry("y", [-1])]),
        inputs={"x": array(2, 4)},
        outputs={"y": array(2, 4)},
    ),
    Case(
        "two-inputs-two-outputs",
        two_inputs(),
        config([A, B], [Y, Z]),
        inputs={"a": array(2, 4), "b": array(2, 4)},
        outputs={"y": 2 * array(2, 4), "z": 0 * array(2, 4)},
    ),
    Case(
        "inputs-in-another-order",
        two_inputs(),
        config([B, A], [Z, Y]),
        inputs={"b": array(2, 4), "a": 3 * array(2, 4)},
        outputs={"z": 2 * array(2, 4), "y": 4 * array(2, 4)},
    ),
    Case(
        "one-output-asked-for",
        two_inputs(),
        config([A, B], [Y, Z]),
        inputs={"a": array(2, 4), "b": array(2, 4)},
        outputs={"z": 0 * array(2, 4)},
    ),
    Case(
        "subset-of-outputs",
        two_inputs(),
        config([A, B], [Z]),
        inputs={"a": array(1, 4), "b": array(1, 4)},
        outputs={"z": 0 * array(1, 4)},
    ),
    Case(
        "inferred-shape",
        matmul(["batch", "inferred"]),
        config([X], [entry("y", [3])]),
        inputs={"x": np.ones((2, 4), np.float32)},
        outputs={"y": np.full((2, 3), 4, np.float32)},
    ),
    Case(
        "undeclared-shape",
        matmul(None),
        config([X], [entry("y", [3])]),
        inputs={"x": np.ones((2, 4), np.float32)},
        outputs={"y": np.full((2, 3), 4, np.float32)},
    ),
    Case(
        "first-dimension-of-another-name",
        identity(output_shape=["rows", 4]),
        config([X], [Y]),
        inputs={"x": array(2, 4)},
        outputs={"y": array(2, 4)},
    ),
    Case(
        "scalar-per-row",
        per_row_scalar(),
        config([X], [entry("y", [1], more="reshape { shape: [] }")]),
        inputs={"x": np.ones((3, 4), np.float32)},
        outputs={"y": np.full((3, 1), 4, np.float32)},
    ),
    Case(
        "scalar-per-row-input",
        identity(shape=["batch"]),
        config(
            [entry("x", [1], more="reshape { shape: [] }")],
            [entry("y", [1], more="reshape { shape: [] }")],
        ),
        inputs={"x": array(3, 1)},
        outputs={"y": array(3, 1)},
    ),
    Case(
        "reshaped-input",
        identity(shape=["batch", 2, 2]),
        config([entry("x", [4], more="reshape { shape: [2, 2] }")], [entry("y", [2, 2])]),
        inputs={"x": array(2, 4)},
        outputs={"y": array(2, 2, 2)},
    ),
    Case(
        "scalar-output",
        scalar_sum(),
        config([X], [entry("y", [1])], max_batch_size=0),
        inputs={"x": np.ones(4, np.float32)},
        outputs={"y": np.array([4], np.float32)},
    ),
    Case(
        "scalar-input",
        scalar_input(),
        config([X, entry("s", [1])], [Y], max_batch_size=0),
        inputs={"x": array(4), "s": np.array([3], np.float32)},
        outputs={"y": 3 * array(4)},
    ),
    Case(
        "value-of-its-own",
        with_default(),
        config([entry("x", [-1, 4])], [entry("y", [-1, 4])], max_batch_size=0),
        inputs={"x": array(1, 4)},
        outputs={"y": array(1, 4) + 10},
    ),
    Case(
        "value-of-its-own-batching",
        with_default(),
        config([X], [Y]),
        inputs={"x": array(2, 4)},
        outputs={"y": array(2, 4) + 10},
    ),
    Case(
        "optional-left-out",
        with_default(),
        config(
            [entry("x", [-1, 4]), entry("w", [4], more="optional: true")],
            [entry("y", [-1, 4])],
            max_batch_size=0,
        ),
        inputs={"x": array(1, 4)},
        outputs={"y": array(1, 4) + 10},
    ),
    Case(
        "optional-given",
        with_default(),
        config(
            [entry("x", [-1, 4]), entry("w", [4], more="optional: true")],
            [entry("y", [-1, 4])],
            max_batch_size=0,
        ),
        inputs={"x": array(1, 4), "w": array(4)},
        outputs={"y": array(1, 4) + array(4)},
    ),
    Case(
        "run-that-fails",
        reshaping([-1, 2]),
        config([entry("x", [-1, 4])], [entry("y", [-1, 2])], max_batch_size=0),
        inputs={"x": array(3, 4)},
        outputs={"y": array(6, 2)},
    ),
    Case(
        "run-fails",
        reshaping([4, 2]),
        config([entry("x", [-1, 4])], [entry("y", [4, 2])], max_batch_size=0),
        inputs={"x": array(3, 4)},
        fails="onnx runtime error",
    ),
    Case(
        "default-model-filename",
        identity(),
        config([X], [Y], more='default_model_filename: "other.onnx"'),
        inputs={"x": array(1, 4)},
        outputs={"y": array(1, 4)},
        layout=named("other.onnx"),
    ),
    Case(
        "directory-named-model.onnx",
        matmul(["batch", 3]),
        config([X], [entry("y", [3])]),
        inputs={"x": np.ones((1, 4), np.float32)},
        outputs={"y": np.full((1, 3), 4, np.float32)},
        layout=in_directory,
    ),
    Case(
        "external-data",
        matmul(["batch", 3]),
        config([X], [entry("y", [3])]),
        inputs={"x": np.ones((1, 4), np.float32)},
        outputs={"y": np.full((1, 3), 4, np.float32)},
        layout=external_data,
    ),
    *(
        simple(f"accepted-{name}", more, inputs={"x": array(1, 4)}, outputs={"y": array(1, 4)})
        for name, more in {
            "threads": parameter("intra_op_thread_count", "1")
            + parameter("inter_op_thread_count", "2"),
            "negative-threads": parameter("intra_op_thread_count", "-3"),
            "fractional-threads": parameter("intra_op_thread_count", "1.5"),
            "parallel": parameter("execution_mode", "1"),
            "no-arena": parameter("enable_mem_arena", "0"),
            "arena-word": parameter("enable_mem_arena", "True"),
            "no-pattern": parameter("enable_mem_pattern", "false"),
            "shrinkage": parameter("memory.enable_memory_arena_shrinkage", "cpu:0"),
            "unknown-parameter": parameter("no_such_parameter", "x"),
            "level-basic": level(-1),
            "level-extended": level(1),
            "level-disabled": level(2),
            "level-unknown": level(5),
            "gpu-accelerator": accelerator("gpu", "tensorrt"),
            "unknown-gpu-accelerator": accelerator("gpu", "no_such_accelerator"),
            "kind-auto": "instance_group { kind: KIND_AUTO count: 1 }",
            "two-instances": "instance_group { kind: KIND_CPU count: 2 }",
            "dynamic-batching": "dynamic_batching { max_queue_delay_microseconds: 100 }",
            "warmup": 'model_warmup { name: "w" batch_size: 2 inputs { key: "x" value '
            "{ data_type: TYPE_FP32 dims: [4] random_data: true } } }",
        }.items()
    ),
    Case(
        "sequence-control",
        controlled(),
        config([X], [Y], more=control("START")),
    ),
]

REFUSED = [
    *(
        Case(f"refused-{name}", identity(), config(inputs, outputs, **options), refused=words)
        for name, inputs, outputs, options, words in [
            (
                "input-datatype",
                [entry("x", [4], "INT64")],
                [Y],
                {},
                "configuration expects datatype TYPE_INT64 for input 'x', model provides TYPE_FP32",
            ),
            (
                "output-datatype",
                [X],
                [entry("y", [4], "FP64")],
                {},
                "configuration expects datatype TYPE_FP64 for output 'y', model provides TYPE_FP32",
            ),
            (
                "string-datatype",
                [entry("x", [4], "STRING")],
                [Y],
                {},
                "configuration expects datatype TYPE_STRING for input 'x'",
            ),
            (
                "input-name",
                [entry("xx", [4])],
                [Y],
                {},
                "unexpected inference input 'xx', allowed inputs are: x",
            ),
            (
                "output-name",
                [X],
                [entry("yy", [4])],
                {},
                "unexpected inference output 'yy', allowed outputs are: y",
            ),
            (
                "input-dims",
                [entry("x", [5])],
                [Y],
                {},
                "tensor 'x': the model expects 2 dimensions (shape [-1,4]) but",
            ),
            (
                "input-dims-unbatched",
                [entry("x", [-1, 5])],
                [entry("y", [-1, 4])],
                {"max_batch_size": 0},
                "(shape [-1,4]) but the model configuration specifies 2 dimensions (shape [-1,5])",
            ),
            (
                "input-rank",
                [entry("x", [4, 1])],
                [Y],
                {},
                "configuration specifies 3 dimensions",
            ),
            (
                "variable-for-number-input",
                [entry("x", [-1])],
                [Y],
                {},
                "making complete shape [-1,-1]",
            ),
            (
                "variable-for-number-output",
                [X],
                [entry("y", [-1])],
                {},
                "tensor 'y': the model expects 2 dimensions (shape [-1,4])",
            ),
            (
                "output-dims",
                [X],
                [entry("y", [3])],
                {},
                "tensor 'y': the model expects 2 dimensions",
            ),
            (
                "number-for-variable-batch-output",
                [entry("x", [2, 4])],
                [entry("y", [2, 4])],
                {"max_batch_size": 0},
                "tensor 'y': the model expects 2 dimensions (shape [-1,4])",
            ),
            (
                "batch-in-dims",
                [entry("x", [-1, 4])],
                [Y],
                {},
                "configuration specifies 3 dimensions",
            ),
            (
                "optional-required",
                [entry("x", [-1, 4], more="optional: true")],
                [entry("y", [-1, 4])],
                {"max_batch_size": 0},
                "configuration expects 0 inputs, model provides 1",
            ),
            (
                "ragged-shape",
                [entry("x", [4], more="allow_ragged_batch: true")],
                [Y],
                {},
                "for ragged input 'x', model provides [-1,4]",
            ),
        ]
    ),
    Case(
        "refused-input-missing",
        two_inputs(),
        config([A], [Y]),
        refused="configuration expects 1 inputs, model provides 2",
    ),
    Case(
        "refused-input-too-many",
        identity(),
        config([X, entry("more", [4])], [Y]),
        refused="configuration expects 2 inputs, model provides 1",
    ),
    Case(
        "refused-value-of-its-own-required",
        with_default(),
        config([X, entry("w", [4])], [Y]),
        refused="configuration expects 2 inputs, model provides 1",
    ),
    Case(
        "refused-optional-with-batching",
        with_default(),
        config([X, entry("w", [4], more="optional: true")], [Y]),
        refused="optional input 'w' is not supported for models that support batching",
    ),
    Case(
        "refused-second-of-two-datatypes",
        two_inputs(),
        config([A, entry("b", [4], "INT32")], [Y]),
        refused="configuration expects datatype TYPE_INT32 for input 'b', model provides TYPE_FP32",
    ),
    Case(
        "refused-fixed-batch",
        identity(shape=[2, 4]),
        config([X], [Y]),
        refused="for the model to support batching the shape should have at least 1 dimension and "
        "the first dimension must be -1; but shape expected by the model is [2,4]",
    ),
    Case(
        "refused-one-fixed-batch-output",
        reshaping([4, 2]),
        config([X], [entry("y", [2])]),
        refused="tensor 'y': for the model to support batching",
    ),
    Case(
        "refused-number-for-variable-output",
        identity(shape=["batch", "n"]),
        config([X], [Y]),
        refused="tensor 'y': the model expects 2 dimensions (shape [-1,-1])",
    ),
    Case(
        "refused-inferred-shape",
        matmul(["batch", "inferred"]),
        config([X], [entry("y", [-1])]),
        refused="tensor 'y': the model expects 2 dimensions (shape [-1,3])",
    ),
    Case(
        "refused-scalar-of-two",
        scalar_sum(),
        config([X], [entry("y", [2])], max_batch_size=0),
        refused="scalar tensor 'y', should only provide 1",
    ),
    Case(
        "refused-zipmap",
        zipmap(),
        config([X], [entry("y", [4])]),
        refused="Unsupported ONNX Type 'ONNX_TYPE_SEQUENCE' for I/O 'y'",
    ),
    Case(
        "refused-sequence",
        sequence_output(),
        config([X], [entry("y", [4])]),
        refused="Unsupported ONNX Type 'ONNX_TYPE_SEQUENCE' for I/O 'y'",
    ),
    Case(
        "refused-sequence-control-missing",
        identity(),
        config([X], [Y], more=control("START")),
        refused="configuration specified sequence control 'START', but model does not provide",
    ),
    Case(
        "refused-sequence-control-datatype",
        controlled(),
        config([X], [Y], more=control("START", "int32_false_true: [0, 1]")),
        refused="sequence control 'START', the model expects data-type",
    ),
    *(
        simple(f"refused-{name}", more, refused=words)
        for name, more, words in [
            ("threads", parameter("intra_op_thread_count", "abc"), "failed to convert 'abc'"),
            ("inter-threads", parameter("inter_op_thread_count", ""), "failed to convert ''"),
            ("mode", parameter("execution_mode", "2"), "execution_mode are 0 or 1 but got 2"),
            ("arena", parameter("enable_mem_arena", "maybe"), "failed to convert 'maybe' to bool"),
            ("pattern", parameter("enable_mem_pattern", "2"), "failed to convert '2' to boolean"),
            (
                "cpu-accelerator",
                accelerator("cpu", "no_such_accelerator"),
                "unknown Execution Accelerator 'no_such_accelerator' is requested",
            ),
            (
                "custom-operations",
                'model_operations { op_library_filename: "/no/such/library.so" }',
                "/no/such/library.so",
            ),
        ]
    ),
    Case(
        "refused-missing-file",
        identity(),
        config([X], [Y], more='default_model_filename: "missing.onnx"'),
        refused="missing.onnx",
    ),
    Case(
        "refused-broken-file",
        identity(),
        config([X], [Y]),
        refused="onnx runtime error",
        layout=broken,
    ),
    Case(
        "refused-unknown-operator",
        model([node("NoSuchOperator", ["x"], ["y"])], [tensor("x")], [tensor("y")]),
        config([X], [Y]),
        refused="onnx runtime error",
    ),
    Case(
        "refused-opset",
        identity(opset=NEWEST.max_opset + 1, ir=NEWEST.max_ir),
        config([X], [Y]),
        refused="onnx runtime error",
    ),
    Case(
        "refused-ir",
        identity(ir=NEWEST.max_ir + 1),
        config([X], [Y]),
        refused="onnx runtime error",
    ),
    Case(
        "refused-complex",
        model(
            [node("Identity", ["x"], ["y"])],
            [helper.make_tensor_value_info("x", TensorProto.COMPLEX64, ["batch", 4])],
            [helper.make_tensor_value_info("y", TensorProto.COMPLEX64, ["batch", 4])],
        ),
        config([X], [Y]),
        refused="",
    ),
]


# ---- the server ------------------------------------------------------------------------------


class Client:
    """A server with every case in its repository, and a client of it."""

    def __init__(self, server: TritonServer) -> None:
        server.wait_live()
        # The client's own channel keeps a thread whose socket is closed late.
        self.grpc = triton.InferenceServerClient(server.grpc_url)

    def verdict(self, name: str) -> str:
        """Load a model; return why it was refused, or nothing."""
        try:
            self.grpc.load_model(name, client_timeout=60)
        except InferenceServerException as error:
            return str(error)
        return ""

    def answer(self, case: Case) -> dict[str, np.ndarray]:
        inputs = []
        for name, value in case.inputs.items():
            wire = "BYTES" if value.dtype == np.object_ else triton_datatype(value)
            given = triton.InferInput(name, list(value.shape), wire)
            given.set_data_from_numpy(value)
            inputs.append(given)
        outputs = [triton.InferRequestedOutput(name) for name in case.outputs]
        result = self.grpc.infer(case.name, inputs, outputs=outputs or None, client_timeout=60)
        return {
            output.name: result.as_numpy(output.name) for output in result.get_response().outputs
        }


def triton_datatype(value: np.ndarray) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(value.dtype))


def write(repository: Path, case: Case) -> None:
    folder = repository / case.name / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(case.config)
    # Saving with external data empties the tensors of the model that it is given.
    proto = type(case.model)()
    proto.CopyFrom(case.model)
    (case.layout or named("model.onnx"))(folder, proto)


def serving(
    runtime: Runtime, repository: Path, cases: Sequence[Case], *further: str
) -> Iterator[Client]:
    for case in cases:
        write(repository, case)
    with TritonServer.start(runtime, str(repository), extra_args=further) as server:
        client = Client(server)
        yield client
        client.grpc.close()
        del client
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


@pytest.fixture(scope="module")
def client(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    yield from serving(runtime, tmp_path_factory.mktemp("repository"), [*ANSWERS, *REFUSED])


def by_name(cases: Sequence[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@by_name(ANSWERS)
def test_what_production_answers_is_answered(client: Client, case: Case) -> None:
    assert client.verdict(case.name) == ""
    if case.fails:
        with pytest.raises(InferenceServerException, match=case.fails):
            client.answer(case)
    elif case.inputs:
        answered = client.answer(case)
        assert set(answered) == set(case.outputs)
        for name, expected in case.outputs.items():
            assert answered[name].shape == expected.shape
            assert answered[name].dtype == expected.dtype
            np.testing.assert_array_equal(answered[name], expected)
    client.grpc.unload_model(case.name)


@by_name(REFUSED)
def test_what_production_refuses_is_refused(client: Client, case: Case) -> None:
    verdict = client.verdict(case.name)
    assert f"load failed for model '{case.name}'" in verdict
    assert case.refused in verdict


def test_a_gpu_that_is_not_there_and_a_field_that_is_none(runtime: Runtime, tmp_path: Path) -> None:
    on_gpu = simple("gpu", "instance_group { kind: KIND_GPU count: 1 }")
    for client in serving(runtime, tmp_path, [on_gpu, simple("field", "no_such_field: 1")]):
        if not Path("/dev/nvidiactl").exists():
            assert "has kind KIND_GPU but no GPUs are available" in client.verdict("gpu")
        assert "failed to poll from model repository" in client.verdict("field")


def test_the_tables_are_long_enough() -> None:
    assert len(ANSWERS) + len(REFUSED) >= 60
    assert set(DATATYPES) - {"BF16"} == set(DATATYPE_VALUES)


# ---- bfloat16: from release 26.03 ------------------------------------------------------------

BFLOAT16 = config([entry("x", [4], "BF16")], [entry("y", [4], "BF16")])


def bfloat16_case(name: str, **options: Any) -> Case:
    return Case(name, identity("BF16"), BFLOAT16, **options)


def test_bfloat16_is_answered(runtime: Runtime, tmp_path: Path) -> None:
    bits = np.array([[0x3F80, 0x4000, 0xC000, 0x7F80]], np.uint16)
    for client in serving(runtime, tmp_path, [bfloat16_case("bf16")]):
        assert client.verdict("bf16") == ""
        given = triton.InferInput("x", [1, 4], "BF16")
        given._raw_content = bits.tobytes()
        result = client.grpc.infer("bf16", [given])
        assert result.get_response().outputs[0].datatype == "BF16"
        assert result.get_response().raw_output_contents[0] == bits.tobytes()


def test_bfloat16_is_refused_before_26_03(runtime: Runtime, tmp_path: Path) -> None:
    environment = {**runtime.environment, "STLAB_TRITON_RELEASE": "26.02"}
    older = dataclasses.replace(runtime, environment=environment)
    for client in serving(older, tmp_path, [bfloat16_case("bf16")]):
        assert "unsupported datatype TYPE_BF16 for input 'x'" in client.verdict("bf16")


# ---- auto-complete ---------------------------------------------------------------------------

MINIMAL = 'backend: "onnxruntime" instance_group { kind: KIND_CPU count: 1 }'
COMPLETED: list[tuple[Case, int, dict[str, list[int]]]] = [
    (Case("nothing", identity(), MINIMAL), 4, {"x": [4], "y": [4]}),
    (Case("only-input", identity(), f"{MINIMAL} input {X}"), 4, {"x": [4], "y": [4]}),
    (Case("batch-size", identity(), f"{MINIMAL} max_batch_size: 16"), 16, {"x": [4], "y": [4]}),
    (Case("fixed", identity(shape=[2, 4]), MINIMAL), 0, {"x": [2, 4], "y": [2, 4]}),
    (Case("own-value", with_default(), MINIMAL), 4, {"x": [4], "y": [4]}),
    (Case("row-scalar", per_row_scalar(), MINIMAL), 4, {"x": [4], "y": [1]}),
    (
        Case(
            "both",
            identity(),
            config([entry("x", [-1, 4])], [entry("y", [-1, 4])], max_batch_size=0),
        ),
        0,
        {"x": [-1, 4], "y": [-1, 4]},
    ),
]
INCOMPLETABLE = [
    (
        Case("fixed-batched", identity(shape=[2, 4]), f"{MINIMAL} max_batch_size: 4"),
        "model does not support batching while non-zero max_batch_size",
    ),
    (
        Case("given-dims", identity(), f"{MINIMAL} input {entry('x', [-1, 4])}"),
        "configuration specifies 3 dimensions",
    ),
    (
        Case("given-dtype", identity(), f"{MINIMAL} input {entry('x', [4], 'INT64')}"),
        "configuration expects datatype TYPE_INT64 for input 'x'",
    ),
    (
        Case("given-output", identity(), f"{MINIMAL} output {entry('z', [4])}"),
        "unexpected inference output 'z'",
    ),
]


def test_auto_complete(runtime: Runtime, tmp_path: Path) -> None:
    cases = [*(case for case, _, _ in COMPLETED), *(case for case, _ in INCOMPLETABLE)]
    for client in serving(runtime, tmp_path, cases, "--strict-model-config=false"):
        for case, max_batch_size, dims in COMPLETED:
            assert client.verdict(case.name) == ""
            completed = client.grpc.get_model_config(case.name).config
            found = {io.name: list(io.dims) for io in (*completed.input, *completed.output)}
            assert found == dims, case.name
            assert completed.max_batch_size == max_batch_size, case.name
            assert completed.HasField("dynamic_batching") == (max_batch_size > 1), case.name
        scalar = client.grpc.get_model_config("row-scalar").config.output[0]
        assert scalar.HasField("reshape")
        assert list(scalar.reshape.shape) == []
        for case, words in INCOMPLETABLE:
            assert words in client.verdict(case.name), case.name


# ---- batches ---------------------------------------------------------------------------------


def test_concurrent_requests_are_cut_and_glued(runtime: Runtime, tmp_path: Path) -> None:
    more = "dynamic_batching { max_queue_delay_microseconds: 20000 }"
    case = Case("batched", matmul(["batch", 3]), config([X], [entry("y", [3])], more=more))
    for client in serving(runtime, tmp_path, [case]):
        assert client.verdict(case.name) == ""
        pending = []
        for index in range(40):
            rows = 1 + index % 3
            value = np.full((rows, 4), index, np.float32)
            given = triton.InferInput("x", list(value.shape), "FP32")
            given.set_data_from_numpy(value)
            done: list[Any] = []
            client.grpc.async_infer(
                case.name, [given], lambda result, error, done=done: done.append((result, error))
            )
            pending.append((value, done))
        deadline = time.monotonic() + 20
        while any(not done for _, done in pending) and time.monotonic() < deadline:
            time.sleep(0.01)
        for value, done in pending:
            result, error = done[0]
            assert error is None
            expected = np.full((len(value), 3), 4 * value[0, 0], np.float32)
            np.testing.assert_array_equal(result.as_numpy("y"), expected)
        statistics = client.grpc.get_inference_statistics(case.name).model_stats[0]
        assert statistics.execution_count < statistics.inference_count


def test_a_failing_request_leaves_its_batch_alone(runtime: Runtime, tmp_path: Path) -> None:
    table = numpy_helper.from_array(np.arange(40, dtype=np.float32).reshape(10, 4), "table")
    lookup = model(
        [node("Gather", ["table", "x"], ["y"])],
        [tensor("x", ["batch"], "INT64")],
        [tensor("y", ["batch", 4])],
        initializers=[table],
    )
    more = "dynamic_batching { max_queue_delay_microseconds: 200000 }"
    case = Case(
        "lookup",
        lookup,
        config([entry("x", [1], "INT64", "reshape { shape: [] }")], [Y], more=more),
    )
    for client in serving(runtime, tmp_path, [case]):
        assert client.verdict(case.name) == ""
        outcomes: dict[int, Any] = {}
        for index in (1, 99, 2, 3):
            given = triton.InferInput("x", [1, 1], "INT64")
            given.set_data_from_numpy(np.array([[index]]))
            client.grpc.async_infer(
                case.name,
                [given],
                lambda result, error, index=index, outcomes=outcomes: outcomes.update(
                    {index: (result, error)}
                ),
            )
        deadline = time.monotonic() + 20
        while len(outcomes) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "onnx runtime error" in str(outcomes[99][1])
        for index in (1, 2, 3):
            result, error = outcomes[index]
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("y")[0], np.arange(4) + 4 * index)
