"""What NVIDIA's onnxruntime backend loads, with what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.integration.triton.triton_onnx_models import config, entry, identity, parameter

if TYPE_CHECKING:
    pass
from tests.integration.triton.backend_cases import (
    DATATYPE_VALUES,
    A,
    B,
    Case,
    X,
    Y,
    Z,
    accelerator,
    array,
    bytes_array,
    control,
    controlled,
    external_data,
    halved,
    in_directory,
    level,
    matmul,
    named,
    per_row_scalar,
    reshaping,
    scalar_input,
    scalar_sum,
    simple,
    stacked,
    two_inputs,
    with_default,
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
