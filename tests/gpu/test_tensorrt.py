"""Plans built and run by the real TensorRT on a real GPU; `make test-gpu` runs them."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import StlabError, ValidationFailedError
from exporter.formats import convert
from exporter.formats.base import Conversion, Target
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Evidence
from exporter.parity.reference_checks import check_reference
from exporter.sources.known_values import Knowledge
from exporter.system.cuda import Memory, gpus
from exporter.triton.installation import cache_directory
from exporter.triton.releases import RELEASES, Release

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]

WIDTH, HIDDEN = 16, 32
ROWS = np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def target() -> Release:
    """The newest release that has the TensorRT installed here."""
    from exporter.formats.tensorrt.requirements import check_available

    refused: StlabError | None = None
    for release in reversed(RELEASES.values()):
        try:
            check_available(release)
        except StlabError as error:
            refused = refused or error
        else:
            return release
    pytest.skip(f"{refused}")


class Network:
    """Two layers, computed by numpy."""

    flavor = "test"
    interface = Interface((Tensor("x", "FP32", ("n", WIDTH)),), (Tensor("y", "FP32", ("n", 3)),))
    frozen_axes: tuple[str, ...] = ()
    batching_blocker = ""
    has_thresholds = False
    operators = frozenset[str]()
    sizes_beyond = MappingProxyType[str, list[int]]({})
    knowledge = Knowledge()

    def __init__(self) -> None:
        random = np.random.default_rng(2)
        self.example = {"x": ROWS}
        self.versions = {"numpy": np.__version__}
        self.notes: list[str] = []
        self.first = random.normal(size=(WIDTH, HIDDEN)).astype(np.float32) / 4
        self.second = random.normal(size=(HIDDEN, 3)).astype(np.float32) / 6

    def run(self, inputs: Any) -> dict[str, Any]:
        return {"y": np.tanh(inputs["x"] @ self.first) @ self.second}

    def run_float64(self, inputs: Any) -> dict[str, Any]:
        return self.run({"x": inputs["x"].astype(np.float64)})

    def onnx_exporters(self, wanted: Any) -> list[Any]:
        return [self.write]

    def write(self, path: Path) -> str:
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "first"], ["a"], name="first"),
                helper.make_node("Tanh", ["a"], ["b"], name="tanh"),
                helper.make_node("MatMul", ["b", "second"], ["y"], name="second"),
            ],
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
            [
                numpy_helper.from_array(self.first, "first"),
                numpy_helper.from_array(self.second, "second"),
            ],
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return "written"


class Other(Network):
    """What it writes is not what it answers."""

    def run(self, inputs: Any) -> dict[str, Any]:
        return {"y": super().run(inputs)["y"] + np.float32(1e-2)}


def built(source: Network, target: Release, folder: Path, precision: str = "fp32") -> Conversion:
    evidence = Evidence(source.interface.outputs)
    references = check_reference(
        source, evidence, max_batch_size=16, batching="auto", precision=precision
    )
    (folder / "bundle").mkdir()
    wanted = Target(target, precision, max_batch_size=references.batching.max_batch_size)
    return convert("tensorrt", source, folder / "bundle", wanted, references)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_answers_as_the_model_does(target: Release, tmp_path: Path, precision: str) -> None:
    result = built(Network(), target, tmp_path, precision)
    assert (tmp_path / "bundle" / "model.plan").stat().st_size == result.bytes > 0
    assert result.interface.inputs[0].shape == (-1, WIDTH)
    assert result.interface.outputs[0].shape == (-1, 3)
    facts = result.facts["tensorrt"]
    assert facts["architecture"] == gpus()[0].capability
    assert facts["precision"] == precision
    assert facts["profile"]["x"] == {"min": [1, WIDTH], "opt": [8, WIDTH], "max": [16, WIDTH]}
    assert list((cache_directory() / "tensorrt").glob(f"timings-{facts['version']}-*.cache"))


def test_a_plan_of_another_model_is_refused(target: Release, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailedError, match="output 'y'") as caught:
        built(Other(), target, tmp_path)
    assert caught.value.kind == "parity"


def test_an_operator_that_tensorrt_lacks_is_named(target: Release, tmp_path: Path) -> None:
    class Odd(Network):
        def write(self, path: Path) -> str:
            written = super().write(path)
            model = onnx.load(path)
            model.graph.node[1].CopyFrom(helper.make_node("Odd", ["a"], ["b"], domain="odd"))
            model.opset_import.append(helper.make_opsetid("odd", 1))
            onnx.save(model, path)
            return written

    with pytest.raises(ValidationFailedError, match="Odd"):
        built(Odd(), target, tmp_path)


def test_memory_of_the_gpu_holds_what_is_put_there(target: Release) -> None:
    with Memory() as memory:
        memory.upload("x", ROWS)
        memory.wait()
        assert np.array_equal(memory.download("x", ROWS.dtype, ROWS.shape), ROWS)
