"""What a model's process may leave: foreign files and lines, taken for no more than data."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from exporter.build.builder import BuildJob
from exporter.build.worker_output import read_event, read_outcome, read_reference_set, take_bundle
from exporter.bundle import CONFIG, MANIFEST, SAMPLES, Bundle
from exporter.errors import ValidationFailedError
from exporter.parity.evidence import Batching, Evidence

CONFIG_TEXT = """name: "m"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
version_policy { specific { versions: 1 } }
instance_group { count: 1 kind: KIND_AUTO }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
dynamic_batching {}
model_warmup { name: "rows-1" batch_size: 1 count: 1 inputs {
  key: "x" value { data_type: TYPE_FP32 dims: 2 input_data_file: "one.bin" } } }
"""
SETTINGS = {"format": "onnx", "precision": "fp32"}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}


def model_of(*weights: TensorProto) -> bytes:
    graph = helper.make_graph([], "graph", [], [], list(weights))
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


@dataclass
class Left:
    """What a process left, and the job that it was for."""

    bundle: Path
    references: Path
    job: BuildJob
    facts: dict[str, Any]

    def seal(self) -> None:
        (self.bundle / MANIFEST).unlink(missing_ok=True)
        Bundle.seal(self.bundle, self.facts)

    def take(self) -> Bundle:
        return take_bundle(self.bundle, self.references, self.job)


@pytest.fixture
def left(tmp_path: Path) -> Left:
    bundle, folder = tmp_path / "left", tmp_path / "bundle"
    (bundle / "warmup").mkdir(parents=True)
    folder.mkdir()
    (bundle / CONFIG).write_text(CONFIG_TEXT)
    (bundle / "model.onnx").write_bytes(model_of())
    (bundle / "warmup" / "one.bin").write_bytes(bytes(8))
    arrays = {"example/input/x": np.ones((1, 2)), "example/output/y": np.ones((1, 2))}
    np.savez(tmp_path / "truth.npz", **arrays)
    np.savez_compressed(bundle / SAMPLES, **arrays)
    facts = {
        "model": "m",
        "version": 1,
        "format": "onnx",
        "precision": "fp32",
        "backend": "onnxruntime",
        "filename": "model.onnx",
        "settings": SETTINGS,
        "libraries": {"onnx": "1"},
        "target": {"release": "26.07", "onnxruntime": "1.2"},
        "interface": {"inputs": [TENSOR], "outputs": [{**TENSOR, "name": "y"}]},
        "batching": {"mode": "dynamic", "max_batch_size": 8, "rows": None},
    }
    job = BuildJob("m", 1, tmp_path, folder, SETTINGS, None, False, allow_pickle=True)
    made = Left(bundle, tmp_path / "truth.npz", job, facts)
    made.seal()
    return made


def test_a_bundle_is_taken_over(left: Left) -> None:
    taken = left.take()
    assert taken.path == left.job.folder
    taken.verify()
    assert (
        read_reference_set(left.references, Batching(8), slow=False).cases[0].case.name == "example"
    )


def _link(left: Left) -> None:
    (left.bundle / "model.onnx").unlink()
    (left.bundle / "model.onnx").symlink_to("/etc/passwd")


def _no_model(left: Left) -> None:
    (left.bundle / "model.onnx").write_bytes(b"\xff" * 99)
    left.seal()


def _folder_link(left: Left) -> None:
    (left.bundle / "more").symlink_to("/etc")


def _pipe(left: Left) -> None:
    os.mkfifo(left.bundle / "pipe")


def _manifest_link(left: Left) -> None:
    (left.bundle / MANIFEST).unlink()
    (left.bundle / MANIFEST).symlink_to("/dev/zero")


def _bomb(left: Left) -> None:
    np.savez_compressed(left.bundle / SAMPLES, x=np.zeros(1 << 22))
    left.seal()


def _weights_elsewhere(left: Left) -> None:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../etc/passwd")
    (left.bundle / "model.onnx").write_bytes(model_of(weights))
    left.seal()


def _changed(**facts: Any) -> Callable[[Left], None]:
    def change(left: Left) -> None:
        left.facts |= facts
        left.seal()

    return change


def _named(name: str) -> Callable[[Left], None]:
    def change(left: Left) -> None:
        manifest = json.loads((left.bundle / MANIFEST).read_bytes())
        manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
        (left.bundle / MANIFEST).write_text(json.dumps(manifest))

    return change


def _config(old: str, new: str) -> Callable[[Left], None]:
    def change(left: Left) -> None:
        assert old in CONFIG_TEXT
        (left.bundle / CONFIG).write_text(CONFIG_TEXT.replace(old, new))
        left.seal()

    return change


CHANGES: dict[str, Callable[[Left], None]] = {
    "link": _link,
    "folder-link": _folder_link,
    "pipe": _pipe,
    "manifest-link": _manifest_link,
    "bomb": _bomb,
    "weights-elsewhere": _weights_elsewhere,
    "no-model": _no_model,
    "file-above": _named("../../model.py"),
    "code": _named("model.py"),
    "missing": _named("more.bin"),
    "other-model": _changed(model="other"),
    "other-version": _changed(version=True),
    "other-settings": _changed(settings={**SETTINGS, "precision": "fp16"}),
    "other-format": _changed(format="torchscript"),
    "batching-of-text": _changed(batching="on"),
    "shape-of-text": _changed(interface={"inputs": [{**TENSOR, "shape": "2"}], "outputs": []}),
    "python-backend": _config('backend: "onnxruntime"', 'backend: "python"'),
    "platform": _config('backend: "onnxruntime"', 'platform: "ensemble"'),
    "file-elsewhere": _config('"model.onnx"', '"../../cache/model.py"'),
    "warmup-elsewhere": _config('"one.bin"', '"../../../secret"'),
    "library": _config("dynamic_batching {}", 'model_operations { op_library_filename: "a" }'),
    "runtime": _config("dynamic_batching {}", 'runtime: "libtriton_own.so"'),
    "agent": _config("dynamic_batching {}", 'model_repository_agents { agents { name: "own" } }'),
    "parameter": _config('"intra_op_thread_count"', '"EXECUTION_ENV_PATH"'),
    "parameter-value": _config('string_value: "1"', 'string_value: "/tmp/x"'),
    "plugin": _config(
        "dynamic_batching {}",
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
        'parameters { key: "trt_extra_plugin_lib_paths" value: "/tmp/x.so" } } } }',
    ),
    "instances": _config("count: 1 kind", "count: 100000 kind"),
    "garbage": _config("name", "{{{"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_else_is(left: Left, change: str) -> None:
    CHANGES[change](left)
    with pytest.raises(ValidationFailedError):
        left.take()
    assert not list(left.job.folder.iterdir())


OUTCOME = {
    "error": None,
    "exit_code": 0,
    "slow": False,
    "uncompiled": [],
    "evidence": Evidence().state(),
}


def test_outcomes(tmp_path: Path) -> None:
    path = tmp_path / "built.json"
    path.write_text(json.dumps(OUTCOME))
    assert read_outcome(path).error is None
    colour = {"kind": "parity", "message": "\x1b[31mred\x07", "hint": ""}
    path.write_text(json.dumps({**OUTCOME, "error": colour, "exit_code": 3}))
    shown = read_outcome(path).error
    assert shown is not None
    assert shown.message.isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 200_000,
        b"1e999",
        b"17 MB" * 3_500_000,
        json.dumps({**OUTCOME, "exit_code": "0"}).encode(),
        json.dumps({**OUTCOME, "exit_code": 7}).encode(),
        json.dumps({**OUTCOME, "error": {"kind": 1}}).encode(),
        json.dumps({**OUTCOME, "evidence": {**Evidence().state(), "checks": [1]}}).encode(),
        json.dumps({**OUTCOME, "evidence": {**Evidence().state(), "notes": "x"}}).encode(),
        json.dumps({**OUTCOME, "evidence": {**Evidence().state(), "precision": {"a": 1}}}).encode(),
        json.dumps({**OUTCOME, "more": 1}).encode(),
    ],
    ids=range(12),
)
def test_garbled_outcomes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "built.json").write_bytes(content)
    with pytest.raises(ValidationFailedError, match="the model's process"):
        read_outcome(tmp_path / "built.json")


def test_outcomes_that_are_no_files(tmp_path: Path) -> None:
    path = tmp_path / "built.json"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for target in (
        Path("/dev/zero"),
        Path("/etc/hostname"),
        tmp_path / "folder",
        tmp_path / "pipe",
    ):
        path.symlink_to(target)
        with pytest.raises(ValidationFailedError):
            read_outcome(path)
        path.unlink()
    for other in (tmp_path / "pipe", tmp_path / "folder", path):
        with pytest.raises(ValidationFailedError):
            read_outcome(other)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"loading ...",
        b"\xff",
        b"[1]",
        b"[" * 60_000,
        b'{"event": "begin"}',
        b'{"event": "begin", "step": "promote"}',
        b'{"event": "say", "step": "load", "text": 5}',
        b'{"event": "end", "step": "load", "seconds": "1"}',
        b'{"event": "end", "step": "load", "seconds": -1}',
        b'{"event": "end", "step": "load", "seconds": 1e999}',
    ],
    ids=range(11),
)
def test_garbled_lines(line: bytes) -> None:
    with pytest.raises(ValidationFailedError, match="the model's process"):
        read_event(line)


def test_lines_hold_nothing_for_a_terminal() -> None:
    event = read_event(b'{"event": "say", "step": "load", "text": "\\u001b]0;x\\u0007"}')
    assert event.text.isprintable()


def _archive(path: Path, compression: int, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("example/input/x.npy", content)


def test_truths_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "truth.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)}
    )
    pickled = io.BytesIO()
    np.lib.format.write_array(pickled, np.array([object()], dtype=object), allow_pickle=True)
    for compression, content in (
        (zipfile.ZIP_DEFLATED, bytes(1 << 22)),
        (zipfile.ZIP_STORED, header.getvalue()),
        (zipfile.ZIP_STORED, pickled.getvalue()),
        (zipfile.ZIP_STORED, b"text"),
    ):
        _archive(path, compression, content)
        with pytest.raises(ValidationFailedError):
            read_reference_set(path, Batching(0), slow=False)
    np.savez(path, **{"a-name-without-parts": np.ones(1)})
    with pytest.raises(ValidationFailedError):
        read_reference_set(path, Batching(0), slow=False)
    path.unlink()
    for target in ("/dev/zero", str(tmp_path / "nowhere")):
        path.symlink_to(target)
        with pytest.raises(ValidationFailedError):
            read_reference_set(path, Batching(0), slow=False)
        path.unlink()
