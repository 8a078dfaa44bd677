"""TensorRT on a machine without a GPU: the accelerator is configured, a plan is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporter.triton.model_config import parse
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command

pytestmark = pytest.mark.triton


def summed() -> onnx.ModelProto:
    """Adds up what lies along an axis that varies."""
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=1)],
        "summed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)


def told(lab: RegistryFixture, name: str) -> Mapping[str, str]:
    """What the published config tells the accelerator."""
    text = (lab.folder / "repository" / name / "config.pbtxt").read_text()
    config = parse(text, where=name)
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator
    (entry,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert entry.name == "tensorrt"
    assert "kind: KIND_AUTO" in text
    assert [setting.batch_size for setting in config.model_warmup][-1] == config.max_batch_size
    return dict(entry.parameters)


def notes(lab: RegistryFixture, name: str) -> str:
    report = lab.folder / "repository" / name / "1" / "report.json"
    return " ".join(json.loads(report.read_text())["parity"]["notes"])


def test_a_model_with_the_accelerator_is_proven_and_published(lab: RegistryFixture) -> None:
    values = np.random.default_rng(3).normal(size=(3, 4, 2)).astype(np.float32)
    lab.register_onnx("summed", summed(), example=values)
    result = lab.export("summed", accelerator="tensorrt", max_batch_size=8)
    assert result.status == "promoted", result.error
    parameters = told(lab, "summed")
    assert parameters["precision_mode"] == "FP32"
    assert int(parameters["max_workspace_size_bytes"]) > 0
    assert parameters["trt_engine_cache_enable"] == "1"
    assert parameters["trt_timing_cache_enable"] == "1"
    assert parameters["trt_engine_cache_path"] == parameters["trt_timing_cache_path"]
    # Rows up to the batch size; the other axis as it was asked, the example's size mostly.
    assert parameters["trt_profile_min_shapes"] == "x:1x2x2"
    assert parameters["trt_profile_opt_shapes"] == "x:4x4x2"
    assert parameters["trt_profile_max_shapes"] == "x:8x8x2"
    assert "proven as the CPU runs it" in notes(lab, "summed")
    assert "refuses other sizes" in notes(lab, "summed")


def test_a_plan_is_refused_before_anything_is_done(lab: RegistryFixture) -> None:
    lab.register_onnx("planned", times(2.0), example=ROWS)
    before = lab.repository_bytes()
    ran = command(
        lab.folder,
        *["planned", "--alias", "staging", "--format", "tensorrt", "--json"],
        # Also where somebody has a GPU.
        CUDA_VISIBLE_DEVICES="",
        MLFLOW_TRACKING_URI=lab.uri,
        STLAB_MODEL_REPOSITORY=str(lab.folder / "repository"),
    )
    assert ran.code == 2
    error = ran.result["error"]
    assert error["kind"] == "usage"
    for missing in ("a GPU", "a server to prove it on"):
        assert missing in error["message"]
        assert missing in ran.stderr
    assert "pip install 'tensorrt-cu12==11.*'" in error["hint"]
    assert "pull" not in ran.result["seconds"]
    assert lab.alias("planned") is None
    assert lab.client.get_model_version("planned", "1").tags == {}
    assert lab.repository_bytes() == before


def test_a_dry_run_says_so_too(lab: RegistryFixture) -> None:
    lab.register_onnx("ancient", times(2.0), example=ROWS)
    result = lab.export("ancient", format="tensorrt", triton_release="24.02", dry_run=True)
    assert result.exit_code == 3
    assert "Triton 24.02 has TensorRT 8.6.3" in (result.error or {})["message"]
    assert lab.alias("ancient") is None
