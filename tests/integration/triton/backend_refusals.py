"""What NVIDIA's onnxruntime backend refuses, with its words."""

from __future__ import annotations

from onnx import TensorProto, helper

from tests.integration.triton.backend_cases import (
    NEWEST,
    A,
    Case,
    X,
    Y,
    accelerator,
    broken,
    control,
    controlled,
    matmul,
    reshaping,
    scalar_sum,
    sequence_output,
    simple,
    two_inputs,
    with_default,
    zipmap,
)
from tests.integration.triton.triton_onnx_models import (
    config,
    entry,
    identity,
    model,
    node,
    parameter,
    tensor,
)

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
