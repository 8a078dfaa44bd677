"""Whatever text others wrote: it is read, or it is a damaged file of a name; nothing else."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import arrays, sources
from exporter.arrays import read_npz, write_npz
from exporter.bounded_text import parse_json, reading
from exporter.bundle import MANIFEST, REPORT, Bundle
from exporter.errors import StlabError, UnavailableError, UsageError, ValidationFailedError
from exporter.names import artifact_path
from exporter.proven_bundle import load_passed
from exporter.registry.pipeline_tags import pipeline_models
from exporter.registry.promotion_record import promoted_tag, promotion
from exporter.sources.mlmodel import MLModel
from exporter.system.environment import load_dotenv
from exporter.system.processes import ProcessId
from exporter.triton.model_config import parse
from tests.support.bundles import make_bundle

NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -1, 2**63, float("inf")])
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@contextlib.contextmanager
def read_or_refused(*names: str) -> Iterator[None]:
    """Let pass what can be read, and what is refused as a damaged file of one of these names."""
    try:
        yield
    except (ValidationFailedError, ValueError) as error:
        if not any(name in str(error) for name in names):
            raise


def mlmodel(folder: Path, content: bytes) -> Path:
    (folder / "MLmodel").write_bytes(content)
    return folder


def read_mlmodel(folder: Path) -> None:
    """Read it, and what is read of it before a model is loaded."""
    with read_or_refused("MLmodel", "refers to a file outside"):
        model = MLModel.read(folder)
        ", ".join(model.flavors)
        model.example_content()
        [str(field) for field in (*model.inputs, *model.outputs)]


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in b"bcdefghijkl"
)
DAMAGED = [
    *(b"", b"5", b"[]", b"flavors: 5", b"flavors: {1: {}}", b"flavors: {onnx: 5}", b"flavors: {1}"),
    *(b"\0", b"\xff\xfe\xff", b"[" * 100_000, b"{a: " * 100_000, b"&a [*a]", b"*a", b"? [a]: b"),
    *(b"flavors: {}\n" + BOMB, b"&a {<<: *a}", b"!!python/object/apply:os.system ['false']"),
    *(b"d: 2001-99-99", b"n: 0x" + b"f" * 99_999, b"n: " + b"9" * 99_999, b"t: !!binary '?'"),
    *(b'flavors: {"\\ud800": {}}', b"x: " * 1_000_000, b"- " * 2000, b"flavors: &a {onnx: *a}"),
    b"flavors: {onnx: {}}\nsignature: {inputs: 5}",
    b"flavors: {onnx: {}}\nsignature: {inputs: '" + b"[" * 9999 + b"'}",
    b"""flavors: {onnx: {}}\nsignature: {inputs: '[{"tensor-spec": {"shape": [1e999]}}]'}""",
    b"""flavors: {onnx: {}}\nsignature: {inputs: '[{"name": [1], "type": "long"}]'}""",
    b"flavors: {onnx: {}}\nsaved_input_example_info: {artifact_path: [1]}",
    b"flavors: {onnx: {}}\nsaved_input_example_info: {artifact_path: ../../etc/passwd}",
    b"flavors: {onnx: {}}\nsaved_input_example_info: {artifact_path: " + b"x" * 300 + b"}",
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:24]))
def test_an_mlmodel_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailedError) as refused:
        MLModel.read(mlmodel(tmp_path, content))
    assert refused.value.exit_code == 3
    read_mlmodel(tmp_path)


def test_an_mlmodel_file_may_say_something_twice(tmp_path: Path) -> None:
    """As PyYAML writes a value that is used twice."""
    shared = {"env": {"conda": "conda.yaml"}}
    content = yaml.safe_dump({"flavors": {"onnx": shared, "python_function": shared}})
    assert "*id001" in content
    assert MLModel.read(mlmodel(tmp_path, content.encode())).flavors["onnx"] == shared


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode()))
def test_any_bytes_as_an_mlmodel_file(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read_mlmodel(mlmodel(tmp_path_factory.mktemp("any"), content))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_values_in_an_mlmodel_file(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    held: Any = {
        "flavors": {"onnx": {"data": "model.onnx"}},
        "signature": {"inputs": json.dumps([{"name": "x", "tensor-spec": {"shape": [-1]}}])},
        "saved_input_example_info": {"artifact_path": "example.json"},
        "utc_time_created": "2026-01-01 00:00:00",
    }
    changed = changed_at(held, data)
    if data.draw(st.booleans()):
        changed["signature"] = {"inputs": json.dumps(data.draw(VALUES))}
    with contextlib.suppress(yaml.YAMLError):  # values that PyYAML itself does not write
        content = yaml.safe_dump(changed).encode(errors="surrogatepass")
        read_mlmodel(mlmodel(tmp_path_factory.mktemp("any"), content))


def changed_at(held: Any, data: st.DataObject) -> Any:
    """Return a copy of which one value, at any depth, is another."""
    result = place = copy.deepcopy(held)
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(VALUES)
            return result
        place = place[key]


def test_a_flavor_that_stumbles_over_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_source(model: MLModel, *, allow_pickle: bool) -> None:
        raise errors.pop()

    fake_flavor = types.ModuleType("fake_flavor")
    fake_flavor.open_source = open_source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_flavor", fake_flavor)
    monkeypatch.setattr(sources, "FLAVORS", {"fake": "fake_flavor"})
    mlmodel(tmp_path, b"flavors: {fake: {}}")
    errors: list[Exception] = [RecursionError(), OverflowError("too large"), TypeError("a list")]
    while errors:
        with pytest.raises(ValidationFailedError, match="fake model cannot be read"):
            sources.open_source(tmp_path)
    errors.append(OSError(24, "Too many open files"))
    with pytest.raises(UnavailableError, match="cannot be read here: Too many open files"):
        sources.open_source(tmp_path)


def use(bundle: Bundle) -> None:
    """Read of a manifest what the commands read."""
    assert len(bundle.sha256) == 64
    assert bundle.size >= 0
    assert bundle.max_batch_size >= 0
    str((bundle.outputs, bundle.release, bundle.files, bundle.version))
    with contextlib.suppress(ValidationFailedError):
        bundle.verify()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 9999),
        *(b'{"schema": 1e999}', b'{"schema": NaN}', b'{"schema": 1, "model": "\\ud800"}'),
        b'{"schema": 1, "model": "net", "version": 1, "files": ["a"]}',
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_manifest_that_is_none(content: bytes, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / MANIFEST).write_bytes(content)
    with pytest.raises(ValidationFailedError, match=r"manifest\.json cannot be read"):
        Bundle.open(bundle.path, "net", 1)
    (bundle.path / REPORT).write_bytes(content)
    assert bundle.passed_report() is None


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_values_in_a_manifest(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = make_bundle(tmp_path_factory.mktemp("any"))
    changed = changed_at(dict(bundle.manifest), data)
    (bundle.path / MANIFEST).write_bytes(json.dumps(changed).encode())
    named = ("the bundle is of", "the bundle's manifest", "refers to a file", "may not hold a file")
    with read_or_refused(bundle.path.name, *named):
        opened = Bundle.open(bundle.path, "net", 1)
        use(opened)


def test_a_report_that_says_it_passed_and_no_more(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    for parity in ({}, {"margin": []}, {"cases": "many"}):
        report = {"bundle": bundle.sha256, "parity": {"passed": True, **parity}}
        (bundle.path / REPORT).write_text(json.dumps(report))
        with pytest.raises(
            ValidationFailedError, match=r"report\.json of version 1 cannot be read"
        ):
            load_passed(bundle, "")


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40) | st.lists(st.sampled_from(
    ["name", ":", '"', "{", "}", "[", "]", "input", "dims", "1e999", "-9" * 30, "\\xff", "\\u", " "]
), max_size=12).map("".join))  # fmt: skip
def test_any_text_as_a_config(text: str) -> None:
    with read_or_refused("model/config.pbtxt"):
        parse(text, where="model/config.pbtxt")


def npz(path: Path, header: str, *, values: bytes = b"", compressed: bool = False) -> Path:
    """Write an npz of one array with a header of one's own."""
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, -1)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1e999,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        "(" * 5000,
        "__import__('os')",
        "{'descr': '''",
    ],
    ids=lambda header: header[:60],
)
def test_an_npz_with_a_header_that_lies(header: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "samples.npz", header)
    with pytest.raises(ValueError, match=r"samples\.npz cannot be read as an npz"):
        read_npz(path)


def test_an_npz_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_MOST_BYTES", 2**20)
    write_npz(tmp_path / "bomb.npz", {"x": np.zeros(2**20)}, compresslevel=9)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"bomb\.npz cannot be read .* holds more than"):
        read_npz(tmp_path / "bomb.npz")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_npz_with_any_byte_changed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = io.BytesIO()
    write_npz(whole, {"x": np.arange(4.0), "s": np.array(["a", "bc"])}, compresslevel=1)  # type: ignore[arg-type]
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npz") / "samples.npz"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.none())])
    with read_or_refused("samples.npz"):
        read_npz(path)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, text=st.text(max_size=20))
def test_any_text_in_a_tag(value: Any, text: str) -> None:
    whole = {"bundle": "a", "uri": "b", "by": "c", "from": value, "at": "d"}
    for tag in (text, json.dumps(value), json.dumps(whole), "[" * 5000, '{"from": 1e999}'):
        record = promotion({promoted_tag("prod"): tag}, "prod")
        assert record is None or isinstance(record.bundle, str)
    if isinstance(value, dict):
        ProcessId.read(value).has_died()
    assert not ProcessId.read({"pid": "9" * 5000}).pid


def test_a_version_that_no_registry_has() -> None:
    for version in ("9" * 5000, "\u0663", "1e9"):
        with pytest.raises(ValidationFailedError, match=r"stlab\.preprocessing"):
            pipeline_models(None, {"stlab.preprocessing": f"models:/a/{version}"})  # type: ignore[arg-type]


def test_json_that_a_reader_could_not_walk() -> None:
    assert parse_json("[" * 60 + "]" * 60)
    wrong = (
        "[" * 99 + "]" * 99,
        "[" * 99_999,
        '["\\ud800"]',
        '{"\\udfff": 1}',
        "9" * 9999,
        "",
        "\0",
    )
    for text in wrong:
        with pytest.raises(ValueError):  # noqa: PT011
            parse_json(text)
    for text in ("1e999", "NaN", "-Infinity", "[99999999999999999999999]"):
        with pytest.raises(ValueError, match="number"):
            parse_json(text, strict=True)


def test_errors_of_the_machine_and_of_stlab_stay_what_they_are() -> None:
    def fail(error: BaseException) -> None:
        with reading("a/file", hint="", kind="artifact"):
            raise error

    for error, expected in (
        (UsageError("no such option"), UsageError),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (PermissionError(13, "Permission denied"), UnavailableError),
        (FileNotFoundError(2, "No such file"), ValidationFailedError),
        (RecursionError("deep"), ValidationFailedError),
    ):
        with pytest.raises(expected):
            fail(error)


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a\\b", "a\0b", "a\x1b[2J", "a" * 300]
)
def test_file_names_of_an_artifact(name: str) -> None:
    with pytest.raises(StlabError, match="outside itself"):
        artifact_path(name)


def test_settings_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\xfe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"\.env cannot be read"):
        load_dotenv()
