"""What Triton's TensorRT accelerator is told of an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.build.configure import build_config
from exporter.formats.base import Conversion, Target
from exporter.formats.tensorrt_accelerator import with_accelerator
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.triton.model_config import parse, render
from exporter.triton.releases import release

INTERFACE = Interface(
    (Tensor("tokens", "INT64", ("n", "t")), Tensor("weights", "FP32", ("n", 3))),
    (Tensor("y", "FP32", ("n", 2)),),
)


def references(
    *sizes: tuple[int, int], names: tuple[str, str] = ("tokens", "weights")
) -> ReferenceSet:
    answers = tuple(
        ReferenceCase(
            Case(f"{n}x{t}", {names[0]: np.zeros((n, t)), names[1]: np.zeros((n, 3))}), {}
        )
        for n, t in sizes
    )
    return ReferenceSet(answers, None, {}, Batching(16), slow=False)


SEEN = references((4, 7), (1, 7), (3, 14), (2, 3))


def told(folder: Path, given: ReferenceSet = SEEN, **target: Any) -> tuple[Mapping[str, str], str]:
    """What the config says of the accelerator, and the notes."""
    interface = target.pop("interface", INTERFACE)
    wanted = Target(release(target.pop("release", "26.07")), accelerator="tensorrt")
    wanted = replace(wanted, **{"max_batch_size": 16, **target})
    plain = Conversion("onnx", "onnxruntime", "model.onnx", interface, "test", {}, 7)
    conversion = with_accelerator(plain, folder, wanted, given)
    most = wanted.max_batch_size
    config = build_config("net", 1, conversion, max_batch_size=most, warmup=[])
    assert parse(render(config), where="it") == config
    (entry,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert entry.name == "tensorrt"
    return dict(entry.parameters), " ".join(conversion.notes)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    return tmp_path


def test_without_an_accelerator_nothing_is_said(model: Path) -> None:
    plain = Conversion("onnx", "onnxruntime", "model.onnx", INTERFACE, "test", {}, 7)
    assert with_accelerator(plain, model, Target(release("26.07")), SEEN) is plain
    config = build_config("net", 1, plain, max_batch_size=16, warmup=[])
    assert not config.HasField("optimization")


def test_sizes_are_those_of_the_batcher_and_of_the_cases(model: Path) -> None:
    parameters, notes = told(model)
    assert parameters["trt_profile_min_shapes"] == "tokens:1x3,weights:1x3"
    assert parameters["trt_profile_opt_shapes"] == "tokens:8x7,weights:8x3"
    assert parameters["trt_profile_max_shapes"] == "tokens:16x14,weights:16x3"
    # Rows are the server's to keep to; the other axis is what a client can get wrong.
    assert "tokens 1x3 to 16x14" in notes
    assert "weights" not in notes


def test_without_batching_rows_are_an_axis_like_others(model: Path) -> None:
    parameters, notes = told(model, max_batch_size=0)
    assert parameters["trt_profile_min_shapes"] == "tokens:1x3,weights:1x3"
    assert parameters["trt_profile_max_shapes"] == "tokens:4x14,weights:4x3"
    assert "weights 1x3 to 4x3" in notes


def test_fixed_sizes_need_no_telling(model: Path) -> None:
    fixed = Interface((Tensor("tokens", "INT64", (4, 7)), Tensor("weights", "FP32", (4, 3))), ())
    parameters, notes = told(model, interface=fixed, max_batch_size=0)
    assert not [key for key in parameters if key.startswith("trt_profile")]
    assert "refuses" not in notes


@pytest.mark.parametrize("name", ["tokens:0", "tokens,1"])
def test_a_name_that_a_list_of_shapes_cannot_hold(model: Path, name: str) -> None:
    odd = Interface((Tensor(name, "INT64", ("n", "t")), INTERFACE.inputs[1]), ())
    parameters, notes = told(model, references((4, 7), names=(name, "weights")), interface=odd)
    assert not [key for key in parameters if key.startswith("trt_profile")]
    assert parameters["trt_timing_cache_enable"] == "1"
    assert f"cannot take the sizes of '{name}'" in notes


def test_an_older_release_is_told_what_it_knows(model: Path) -> None:
    parameters, notes = told(model, release="24.03")
    assert set(parameters) == {
        "precision_mode",
        "max_workspace_size_bytes",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
    }
    assert "Triton 24.03 takes no sizes" in notes


@pytest.mark.parametrize(
    ("name", "precision", "mode"),
    [
        ("25.03", "fp32", "FP32"),
        ("25.03", "fp16", "FP16"),
        ("25.03", "int8", "INT8"),
        ("26.02", "fp16", "FP16"),
        # The graph's own types say it, and there is no flag any more.
        ("26.07", "fp16", "FP32"),
        ("26.07", "int8", "FP32"),
    ],
)
def test_the_precision_is_the_release_s_to_be_told(
    model: Path, name: str, precision: str, mode: str
) -> None:
    assert told(model, release=name, precision=precision)[0]["precision_mode"] == mode


def test_other_weights_never_find_the_engine_of_these(model: Path) -> None:
    def cache() -> str:
        parameters, _ = told(model)
        path = parameters["trt_engine_cache_path"]
        assert path == parameters["trt_timing_cache_path"]
        assert Path(path).parent == Path("/tmp")  # the server makes one folder, and no parents
        return path

    first = cache()
    assert cache() == first
    (model / "model.onnx.data").write_bytes(b"other")
    assert cache() != first


def test_it_says_that_the_accelerator_was_not_exercised(model: Path) -> None:
    assert "proven as the CPU runs it" in told(model)[1]
