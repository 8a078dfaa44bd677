"""The builder's code against TensorRT's real Python bindings: every name and call of it exists.

Nothing can be built without a GPU; but a flag that a version has no more, or an argument that a
call never had, fails here.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.exporter.formats.tensorrt_bindings import ROOT, VERSIONS, Bindings, signatures

FOLDER = ROOT / "exporter" / "formats" / "tensorrt"
# What a variable of a module is, as TensorRT calls it.
CLASSES = {
    "plan.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
        "tensor": "ITensor",
        "error": "ParserError",
    },
    "engine.py": {
        "engine": "ICudaEngine",
        "context": "IExecutionContext",
        "self._engine": "ICudaEngine",
        "self._context": "IExecutionContext",
        "self._runtime": "Runtime",
    },
}
# What the code asks of older versions alone.
GONE = {"10.9.0.34": set(), "11.4.0.106": {"BuilderFlag.FP16", "BuilderFlag.INT8"}}


@pytest.fixture(scope="module", params=VERSIONS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return Bindings.install(request.param, tmp_path_factory.mktemp("libraries"))


@pytest.fixture(scope="module")
def described(bindings: Bindings) -> dict[str, Any]:
    return bindings.described()


def nodes(file: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((FOLDER / file).read_text()))


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def members() -> Iterator[tuple[str, str, ast.AST]]:
    """Every class of TensorRT that the code names something of, with the name."""
    for file, classes in CLASSES.items():
        for node in nodes(file):
            if isinstance(node, ast.Attribute):
                whole, owner = dotted(node), dotted(node.value)
                if whole.startswith("trt.") and whole.count(".") == 2:
                    yield owner.removeprefix("trt."), node.attr, node
                elif owner in classes:
                    yield classes[owner], node.attr, node


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every method of TensorRT that the code calls."""
    for file, classes in CLASSES.items():
        for node in nodes(file):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner, name = dotted(node.func.value), node.func.attr
                if owner in classes:
                    yield classes[owner], name, node
                elif owner == "trt" and name[0].isupper():
                    yield name, "__init__", node


def test_every_name_is_one_of_tensorrts(bindings: Bindings, described: dict[str, Any]) -> None:
    found = {f"{kind}.{name}" for kind, name, _ in members()}
    missing = {
        name
        for name in found
        if name.partition(".")[2] not in described.get(name.partition(".")[0], {})
    }
    assert missing == GONE[bindings.version]
    # The code is read: each class above is one that it uses.
    assert {kind for kind, _, _ in members()} >= {k for c in CLASSES.values() for k in c.values()}
    assert len(found) > 35


def test_every_call_fits_its_signature(described: dict[str, Any]) -> None:
    checked = 0
    for kind, name, call in calls():
        overloads = signatures(name, described[kind][name])
        assert overloads, f"{kind}.{name} says nothing of what it takes"
        keywords = {keyword.arg or "" for keyword in call.keywords}
        assert any(overload.takes(len(call.args), keywords) for overload in overloads), (
            f"{kind}.{name} takes {overloads}, not {ast.unparse(call)}"
        )
        checked += 1
    assert checked > 25


def test_a_call_that_does_not_fit_is_seen(described: dict[str, Any]) -> None:
    (overload,) = signatures("set_timing_cache", described["IBuilderConfig"]["set_timing_cache"])
    assert overload.takes(1, {"ignore_mismatch"})
    assert not overload.takes(1, set())
    assert not overload.takes(1, {"ignore"})
    assert not overload.takes(3, set())


def test_the_types_are_tensorrts(described: dict[str, Any]) -> None:
    (table,) = (
        node.value
        for node in nodes("engine.py")
        if isinstance(node, ast.Assign) and dotted(node.targets[0]) == "_DATATYPES"
    )
    assert set(ast.literal_eval(table)) <= set(described["DataType"])


def test_what_needs_no_gpu_runs(bindings: Bindings, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    told = bindings.run(
        f"""
import json
from pathlib import Path
from exporter.system.cuda import Gpu
from exporter.errors import StlabError
from exporter.formats.tensorrt import engine, plan
from exporter.formats.tensorrt import requirements as available

log = plan.Log()
log.log(tensorrt.ILogger.Severity.WARNING, "well")
log.log(tensorrt.ILogger.Severity.ERROR, "no\\n  good")
try:
    plan.build_plan(Path({str(tmp_path / "model.onnx")!r}), (), precision="fp32", gpu=None)
except StlabError as error:
    refused = error.message
print(json.dumps([
    log.messages(),
    refused,
    [plan._network_flags(precision) for precision in ("fp32", "fp16", "int8")],
    available._tensorrt(),
    plan._timings(Gpu("NVIDIA A10G (x)", "8.6", 0)).name,
]))
"""
    )
    log, refused, flags, found, timings = json.loads(told)
    assert log == "no good"
    # The empty library makes no builder.
    assert refused.startswith(f"TensorRT {bindings.version} does not start on this GPU")
    typed = bindings.version.startswith("11")
    assert [flag != 0 for flag in flags] == [not typed, False, False]
    assert found == [bindings.version, []]
    assert timings == f"timings-{bindings.version}-nvidia-a10g-x-sm86.cache"
