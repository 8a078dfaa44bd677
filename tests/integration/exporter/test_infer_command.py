"""``stlab infer`` as a process, against a real server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.running import Ran, command

pytestmark = pytest.mark.triton

KEYS = {"schema", "model", "version", "seconds", "outputs", "error"}
TIMES = """
name: "times"
backend: "onnxruntime"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [6] }
output { name: "y" data_type: TYPE_FP32 dims: [6] }
instance_group { kind: KIND_CPU count: 1 }
version_policy { all { } }
default_model_filename: "model.onnx"
"""
ODD = """
name: "odd"
backend: "python"
max_batch_size: 0
input { name: "words" data_type: TYPE_STRING dims: [-1] }
output { name: "words" data_type: TYPE_STRING dims: [-1] }
output { name: "numbers" data_type: TYPE_FP64 dims: [3] }
instance_group { kind: KIND_CPU count: 1 }
"""
ODD_MODEL = """
import time
import numpy
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request.inputs()[0].as_numpy()) for request in requests]

    def answer(self, words):
        if b"wait" in words:
            time.sleep(2)
        if b"fail" in words:
            return utils.InferenceResponse(error=utils.TritonError("out of luck"))
        numbers = numpy.array([numpy.nan, numpy.inf, 1.5])
        return utils.InferenceResponse(
            [utils.Tensor("words", words), utils.Tensor("numbers", numbers)]
        )
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    root = tmp_path_factory.mktemp("repository")
    for version in (1, 2):
        (root / "times" / str(version)).mkdir(parents=True)
        model = times(float(version)).SerializeToString()
        (root / "times" / str(version) / "model.onnx").write_bytes(model)
    (root / "times" / "config.pbtxt").write_text(TIMES)
    (root / "odd" / "1").mkdir(parents=True)
    (root / "odd" / "1" / "model.py").write_text(ODD_MODEL)
    (root / "odd" / "config.pbtxt").write_text(ODD)
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    with TritonServer.start(runtime, str(root), models=["times", "odd"]) as started:
        started.wait_live()
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=ROWS)
    (tmp_path / "words.json").write_text(json.dumps({"inputs": {"words": ["Zürich", ""]}}))
    return tmp_path


def ask(folder: Path, server: TritonServer | None, *arguments: str, **settings: str) -> Ran:
    url = () if server is None else ("--url", server.grpc_url)
    return command(folder, *arguments, *url, verb="infer", **settings)


def answer(ran: Ran) -> dict[str, Any]:
    """The one object on stdout, which is JSON without any of Python's additions."""
    (line,) = ran.stdout.splitlines()
    content = json.loads(line, parse_constant=pytest.fail)
    assert set(content) == KEYS
    assert content["schema"] == 1
    assert (content["error"] is None) == (ran.code == 0)
    return dict(content)


def error(ran: Ran) -> dict[str, str]:
    found = answer(ran)["error"]
    assert set(found) == {"kind", "message", "hint"}
    assert found["hint"]
    assert found["message"] in ran.stderr
    return dict(found)


def test_an_answer_for_people(folder: Path, server: TritonServer) -> None:
    ran = ask(folder, server, "times", "--input", "x.npz", "--output", "y.npz")
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    for shown in ("y", "FP32", "[4, 6]", "min", "mean", "max", "times version 2 answered in"):
        assert shown in ran.stdout
    with np.load(folder / "y.npz", allow_pickle=False) as written:
        assert written.files == ["y"]
        np.testing.assert_array_equal(written["y"], ROWS * np.float32(2))


def test_an_answer_for_machines(folder: Path, server: TritonServer) -> None:
    arguments = ("times", "--input", "x.npz", "--version", "1", "--outputs", "y", "--json")
    content = answer(ask(folder, None, *arguments, STLAB_TRITON_URL=f"{server.grpc_url}, no:1"))
    assert (content["model"], content["version"]) == ("times", 1)
    assert 0 < content["seconds"] < 60
    output = content["outputs"]["y"]
    assert (output["datatype"], output["shape"]) == ("FP32", [4, 6])
    np.testing.assert_array_equal(np.float32(output["data"]), ROWS)


def test_more_rows_than_one_request_takes(folder: Path, server: TritonServer) -> None:
    rows = [[float(row)] * 6 for row in range(9)]
    (folder / "rows.json").write_text(json.dumps({"x": rows}))
    content = answer(ask(folder, server, "times", "--input", "rows.json", "--json"))
    assert content["outputs"]["y"]["data"] == [[2 * value for value in row] for row in rows]


def test_strings_and_numbers_that_json_has_not(folder: Path, server: TritonServer) -> None:
    arguments = ("odd", "--input", "words.json", "--output", "y.npz")
    outputs = answer(ask(folder, server, *arguments, "--json"))["outputs"]
    assert outputs["words"] == {"datatype": "BYTES", "shape": [2], "data": ["Zürich", ""]}
    assert outputs["numbers"]["data"] == ["NaN", "Infinity", 1.5]
    with np.load(folder / "y.npz", allow_pickle=False) as written:
        assert written["words"].tolist() == ["Zürich", ""]
    np.savez(folder / "words.npz", words=np.array([b"\xff", b"b"]))
    raw = answer(ask(folder, server, "odd", "--input", "words.npz", "--outputs", "words", "--json"))
    assert raw["outputs"].keys() == {"words"}
    assert raw["outputs"]["words"]["data"] == [{"base64": "/w=="}, "b"]
    shown = ask(folder, server, "odd", "--input", "words.json")
    assert "'Zürich'" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message", "hint"),
    [
        (["no", "--input", "x.npz"], 4, "not_found", "has no model 'no'", "has: odd, times"),
        (["times", "--input", "x.npz", "--version", "9"], 4, "not_found", "version 9", "has: odd"),
        (["times", "--input", "words.json"], 2, "usage", "no such input", "x: FP32[-1, 6]"),
        (["times", "--input", "x.npz", "--outputs", "z"], 2, "usage", "no such output", "y: FP32"),
        (["times", "--input", "doubles.npz"], 2, "usage", "float64", "x: FP32"),
        (["times", "--input", "no.npz"], 2, "usage", "does not exist", "--input"),
        (["odd", "--input", "wait.json", "--deadline", "1"], 6, "deadline", "1 s", "--deadline"),
        (["odd", "--input", "fail.json"], 3, "target", "out of luck", "log"),
    ],
)
def test_what_goes_wrong(
    folder: Path,
    server: TritonServer,
    arguments: list[str],
    code: int,
    kind: str,
    message: str,
    hint: str,
) -> None:
    np.savez(folder / "doubles.npz", x=ROWS.astype(np.float64))
    for word in ("wait", "fail"):
        (folder / f"{word}.json").write_text(json.dumps({"words": [word]}))
    ran = ask(folder, server, *arguments, "--json")
    assert ran.code == code, ran.stderr
    found = error(ran)
    assert found["kind"] == kind
    assert message in found["message"]
    assert hint in found["hint"]
    assert answer(ran)["model"] == arguments[0]


def test_what_the_command_does_not_take(folder: Path) -> None:
    ran = ask(folder, None, "times", "--json")
    assert (ran.code, error(ran)["kind"]) == (2, "usage")
    assert "--input" in error(ran)["message"]


def test_no_server(folder: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        ran = ask(folder, None, "times", "--input", "x.npz", "--url", url, "--json")
        silent = ask(folder, None, "times", "--input", "x.npz", "--url", url)
    assert (ran.code, error(ran)["kind"]) == (6, "unavailable")
    assert (silent.code, silent.stdout) == (6, "")
    assert silent.stderr.startswith("error: no Triton server answers at")
