"""What NVIDIA's onnxruntime backend says to a configuration, this one says too.

Every row of the tables is a model, a configuration and the verdict that NVIDIA's backend of
release 24.10 gives on a CPU: it loads, it is refused with these words, or it answers this.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx import numpy_helper
from tritonclient.utils import InferenceServerException

from tests.integration.triton.triton_onnx_models import (
    DATATYPES,
    config,
    entry,
    identity,
    model,
    node,
    tensor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporter.triton.runtime import Runtime
from tests.integration.triton.backend_answers import ANSWERS
from tests.integration.triton.backend_cases import (
    DATATYPE_VALUES,
    Case,
    X,
    Y,
    matmul,
    per_row_scalar,
    simple,
    with_default,
)
from tests.integration.triton.backend_refusals import REFUSED
from tests.integration.triton.backend_serving import Client, serving

pytestmark = pytest.mark.triton


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
    client.grpc.unload_model(case.name, headers=client.headers)


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
