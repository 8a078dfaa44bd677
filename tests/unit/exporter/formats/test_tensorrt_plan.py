"""From a model to a plan, with stand-ins for what needs a GPU (`fake_tensorrt`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import StlabError, UnavailableError, UsageError, ValidationFailedError
from exporter.formats import check, convert
from exporter.formats.base import Conversion, Target
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Evidence
from exporter.parity.input_generator import named_samples
from exporter.parity.reference_checks import check_reference
from exporter.parity.reference_set import ReferenceSet
from exporter.sources.known_values import Knowledge
from exporter.system import cuda
from exporter.triton.releases import release
from tests.unit.exporter.formats.fake_tensorrt import FakeDriver, FakeTensorRT

ROWS = np.random.default_rng(5).normal(size=(4, 3, 2)).astype(np.float32)


class Doubling:
    """A reference that doubles, with an axis that varies."""

    flavor = "test"
    interface = Interface(
        (Tensor("x", "FP32", ("n", "t", 2)),), (Tensor("y", "FP32", ("n", "t", 2)),)
    )
    frozen_axes: tuple[str, ...] = ()
    batching_blocker = ""
    has_thresholds = False
    operators = frozenset[str]()
    sizes_beyond = MappingProxyType[str, list[int]]({})
    knowledge = Knowledge()
    nodes: Any = (("Mul", ["x", "two"], ["y"]),)

    def __init__(self) -> None:
        self.example = {"x": ROWS}
        self.versions = {"test": "1"}
        self.notes: list[str] = []

    def run(self, inputs: Any) -> dict[str, Any]:
        return {"y": inputs["x"] * 2}

    def run_float64(self, inputs: Any) -> None:
        return None

    def onnx_exporters(self, target: Any) -> list[Callable[[Path], str]]:
        return [self.write]

    def write(self, path: Path) -> str:
        graph = helper.make_graph(
            [
                helper.make_node(kind, given, found, name=f"node{number}")
                for number, (kind, given, found) in enumerate(self.nodes)
            ],
            "doubling",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t", 2])],
            [numpy_helper.from_array(np.float32(2), "two")],
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return "written"


class Setup:
    """What is installed, and the folder to write into."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.driver = FakeDriver()
        self.install(FakeTensorRT("11.4.0.106"))
        patch.setattr(cuda, "_load", lambda: self.driver)
        patch.setenv("STLAB_CACHE", str(folder / "cache"))

    def install(self, tensorrt: FakeTensorRT) -> None:
        self.tensorrt = tensorrt
        self.patch.setitem(sys.modules, "tensorrt", tensorrt)
        forget()

    def convert(self, source: Doubling, most: int = 8, **target: Any) -> Conversion:
        self.references = references_of(source, most)
        number = len(list(self.folder.glob("bundle*")))
        folder = self.folder / f"bundle{number}"
        folder.mkdir()
        wanted = Target(release(target.pop("release", "26.07")), max_batch_size=most)
        result = convert("tensorrt", source, folder, replace(wanted, **target), self.references)
        assert [path.name for path in folder.iterdir()] == ["model.plan"]
        assert result.bytes == (folder / "model.plan").stat().st_size
        # Nothing is left on the GPU, nor beside the bundle.
        assert not self.driver.lent
        assert not list(self.folder.glob("onnx-*"))
        return result


def forget() -> None:
    for name in ("plan", "engine"):
        sys.modules.pop(f"exporter.formats.tensorrt.{name}", None)


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    yield Setup(tmp_path, monkeypatch)
    forget()


def references_of(source: Doubling, most: int) -> ReferenceSet:
    longest = named_samples({"long/x": np.tile(ROWS, (1, 5, 1))}, source.interface)
    return check_reference(
        source,
        Evidence(source.interface.outputs),
        max_batch_size=most or 8,
        batching="auto" if most else "off",
        samples=longest,
    )


def test_a_plan_is_built_run_and_described(setup: Setup) -> None:
    result = setup.convert(Doubling())
    assert (result.format, result.backend, result.filename) == ("tensorrt",) * 2 + ("model.plan",)
    assert result.interface.inputs == Doubling.interface.inputs
    assert result.versions["tensorrt"] == "11.4.0.106"
    # Rows up to the batch size, and the other axis from its shortest to the user's sample.
    assert result.facts["tensorrt"] == {
        "version": "11.4.0.106",
        "gpu": "Fake GPU",
        "architecture": "8.6",
        "precision": "fp32",
        "profile": {"x": {"min": [1, 1, 2], "opt": [4, 3, 2], "max": [8, 15, 2]}},
    }
    notes = " ".join(result.notes)
    assert "compute capability 8.6" in notes
    assert "x 1x1x2 to 8x15x2" in notes
    ((network, config),) = setup.tensorrt.built
    assert network.flags == 0  # all networks of this version are typed
    assert config.flags == {"STRICT_NANS"}
    assert config.pools["workspace"] > 0


def test_what_is_not_batched_has_its_rows_from_the_cases(setup: Setup) -> None:
    result = setup.convert(Doubling(), most=0)
    rows = {answer.case.inputs["x"].shape[0] for answer in setup.references.cases}
    profile = result.facts["tensorrt"]["profile"]["x"]
    assert (profile["min"][0], profile["max"][0]) == (min(rows), max(rows))


@pytest.mark.parametrize(
    ("version", "precision", "typed", "flags", "reduced"),
    [
        ("10.9.0.34", "fp32", True, set(), False),
        ("10.9.0.34", "fp16", False, {"FP16", "TF32"}, False),
        ("10.9.0.34", "int8", False, {"INT8", "TF32"}, True),
        ("11.4.0.106", "fp16", False, {"TF32"}, True),
        ("11.4.0.106", "int8", False, {"TF32"}, True),
    ],
)
def test_a_precision_is_a_flag_or_the_models_own(
    setup: Setup, version: str, precision: str, typed: bool, flags: set[str], reduced: bool
) -> None:
    setup.install(FakeTensorRT(version))
    asked: list[Path] = []

    def reduce_precision(
        path: Path,
        conversion: Conversion,
        target: Target,
        references: ReferenceSet,
        *,
        symmetric: bool,
    ) -> Conversion:
        assert path.is_file()
        assert symmetric
        assert target.precision == precision
        asked.append(path)
        return conversion

    module = ModuleType("precision")
    module.reduce_precision = reduce_precision  # type: ignore[attr-defined]
    setup.patch.setitem(sys.modules, "exporter.formats.precision", module)
    name = "25.03" if version.startswith("10") else "26.07"
    setup.convert(Doubling(), release=name, precision=precision)
    ((network, config),) = setup.tensorrt.built
    assert (network.flags != 0) is typed
    assert config.flags - {"STRICT_NANS"} == flags
    assert bool(asked) is reduced


def test_another_answer_is_refused_with_its_case_and_output(setup: Setup) -> None:
    setup.install(FakeTensorRT("11.4.0.106", error=1e-2))
    failed = refused(setup, Doubling())
    assert failed.kind == "parity"
    first = setup.references.cases[0].case.name
    assert f"differs from the registered model: {first}, output 'y': " in failed.message
    assert not setup.driver.lent


def test_a_type_that_tensorrt_lacks_is_refused_before_anything_is_built(setup: Setup) -> None:
    class Wide(Doubling):
        interface = Interface(
            (Tensor("x", "FP32", ("n", "t", 2)),), (Tensor("y", "FP64", ("n", "t", 2)),)
        )

    failed = refused(setup, Wide())
    assert failed.kind == "target"
    assert "has no FP64, the type of output 'y'" in failed.message
    assert not setup.tensorrt.built


def test_every_error_of_the_parser_is_told(setup: Setup) -> None:
    class Odd(Doubling):
        nodes = (
            ("NonZero", ["x"], ["places"]),
            ("Shape", ["places"], ["size"]),
            ("Det", ["square"], ["det"]),
            ("Mul", ["x", "two"], ["y"]),
            ("Reshape", ["x", "two_by_two"], ["square"]),
        )

        def write(self, path: Path) -> str:
            written = super().write(path)
            model = onnx.load(path)
            constant = numpy_helper.from_array(np.array([-1, 2, 2]), "two_by_two")
            model.graph.initializer.append(constant)
            onnx.save(model, path)
            return written

    failed = refused(setup, Odd())
    assert failed.kind == "convert"
    assert "NonZero 'node0': no importer registered" in failed.message
    assert "Det 'node2': no importer registered" in failed.message


def test_inputs_whose_values_are_sizes_are_refused(setup: Setup) -> None:
    from exporter.formats.tensorrt.plan import _check_inputs

    class Network:
        num_inputs = 1

        def get_input(self, index: int) -> Any:
            return type("Input", (), {"name": "sizes", "is_shape_tensor": True})

    with pytest.raises(ValidationFailedError, match="'sizes' decide the shapes"):
        _check_inputs(Network())


def test_timings_are_kept_for_the_next_build(setup: Setup) -> None:
    for _ in range(2):
        setup.convert(Doubling())
    (kept,) = (setup.folder / "cache" / "tensorrt").iterdir()
    assert kept.name == "timings-11.4.0.106-fake-gpu-sm86.cache"
    assert kept.read_bytes() == b".."  # the second build began with what the first one measured
    kept.write_bytes(b"garbage")
    setup.convert(Doubling())
    assert kept.read_bytes() == b"."


def test_a_gpu_whose_memory_is_full_is_no_fault_of_the_model(setup: Setup) -> None:
    setup.driver.most = 64
    with pytest.raises(UnavailableError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        setup.convert(Doubling())


def refused(setup: Setup, source: Doubling) -> StlabError:
    with pytest.raises(ValidationFailedError) as caught:
        setup.convert(source)
    assert caught.value.hint
    assert not list(setup.folder.glob("*/model.plan"))
    return caught.value


def test_what_is_missing_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    target = release("26.07")
    check("tensorrt", target, "gpu:8001")
    setup.driver.devices = 0
    monkeypatch.setattr("exporter.formats.find_tritonserver", lambda: None)
    with pytest.raises(UsageError) as caught:
        check("tensorrt", target)
    assert "a GPU" in caught.value.message
    assert "a server to prove it on" in caught.value.message
    assert "TensorRT" not in caught.value.message
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setattr("exporter.formats.tensorrt.requirements.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="the Python package tensorrt; a GPU"):
        check("tensorrt", target, "gpu:8001")
    check("onnx", target)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise OSError

    monkeypatch.setattr(cuda, "_load", load)
    with pytest.raises(cuda.CudaError, match=r"no NVIDIA driver \(libcuda"):
        cuda.gpus()


@pytest.mark.parametrize(
    ("version", "name", "words"),
    [
        ("10.9.0.34", "26.07", "TensorRT 10.9.0.34 is installed here and Triton 26.07 has 11"),
        ("11.4.0.106", "25.03", "Triton 25.03 has 10.9.0"),
        ("8.6.1", "24.02", "Triton 24.02 has TensorRT 8.6.3"),
    ],
)
def test_a_plan_for_another_tensorrt_is_refused(
    setup: Setup, version: str, name: str, words: str
) -> None:
    setup.install(FakeTensorRT(version))
    with pytest.raises(ValidationFailedError, match=words) as caught:
        check("tensorrt", release(name), "gpu:8001")
    assert caught.value.kind == "target"
    assert "--triton-release" in caught.value.hint
    with pytest.raises(ValidationFailedError, match=words):
        setup.convert(Doubling(), release=name)
    assert not setup.tensorrt.built


def test_which_tensorrt_to_install(setup: Setup) -> None:
    setup.install(FakeTensorRT("10.1.0"))
    with pytest.raises(ValidationFailedError) as caught:
        check("tensorrt", release("25.03"), "gpu:8001")
    assert "pip install 'tensorrt-cu12==10.9.*'" in caught.value.hint
