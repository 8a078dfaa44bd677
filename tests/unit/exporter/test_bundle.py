from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from exporter.bundle import MANIFEST, Bundle, folder_digest
from exporter.errors import ValidationFailedError
from tests.support.bundles import make_bundle


def test_the_digest_is_that_of_the_content_alone(tmp_path: Path) -> None:
    first = make_bundle(tmp_path)
    again = make_bundle(tmp_path)
    os.utime(again.path / "model.onnx", (0, 0))
    assert first.path != again.path
    assert first.sha256 == again.sha256 == Bundle.open(again.path, "net", 1).sha256
    assert make_bundle(tmp_path, weights=b"others").sha256 != first.sha256
    assert make_bundle(tmp_path, version=2).sha256 != first.sha256


def test_the_report_is_no_part_of_the_digest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    before = bundle.sha256
    (bundle.path / "report.json").unlink()
    assert bundle.passed_report() is None
    assert Bundle.open(bundle.path, "net", 1).sha256 == before
    bundle.verify()


def test_a_report_about_other_bytes_counts_for_nothing(tmp_path: Path) -> None:
    bundle, other = make_bundle(tmp_path), make_bundle(tmp_path, weights=b"others")
    assert bundle.passed_report() is not None
    shutil.copy(other.path / "report.json", bundle.path / "report.json")
    assert bundle.passed_report() is None


@pytest.mark.parametrize("name", ["model.onnx", "config.pbtxt", "warmup/00000000.bin"])
def test_tampering_is_seen(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path)
    bundle.verify()
    path = bundle.path / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1  # the size stays
    path.write_bytes(bytes(content))
    with pytest.raises(ValidationFailedError, match=name):
        Bundle.open(bundle.path, "net", 1).verify()
    path.unlink()
    with pytest.raises(ValidationFailedError, match=f"{name} is missing"):
        bundle.verify()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"{}", b'{"bundle": "%s"}'),
        b'{"bundle": "%s", "parity": {"passed": false}}',
    ],
)
def test_a_report_that_does_not_say_passed_counts_for_nothing(
    tmp_path: Path, content: bytes
) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "report.json").write_bytes(content.replace(b"%s", bundle.sha256.encode()))
    assert bundle.passed_report() is None


@pytest.mark.parametrize("name", ["libtriton_onnxruntime.so", "1/x.so.1", "model.py"])
def test_what_nobody_has_proven_is_seen(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_bytes(b"\x7fELF")
    with pytest.raises(ValidationFailedError, match="is not in the manifest"):
        bundle.verify()
    with pytest.raises(ValidationFailedError, match="may not hold a file called"):
        Bundle.seal(bundle.path, {})


def test_a_bundle_of_another_version_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(ValidationFailedError, match="of 'net' version 1, not of 'net' 2"):
        Bundle.open(bundle.path, "net", 2)
    with pytest.raises(ValidationFailedError, match="not of 'other' 1"):
        Bundle.open(bundle.path, "other", 1)


def test_a_changed_manifest_is_another_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    path = bundle.path / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"onnx"', b'"onyx"'))
    assert Bundle.open(bundle.path, "net", 1).sha256 != bundle.sha256


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path)
    manifest = json.loads((bundle.path / MANIFEST).read_bytes())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValidationFailedError, match="outside itself"):
        Bundle.open(bundle.path, "net", 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"schema": 1}', b"\xff"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / MANIFEST).write_bytes(content)
    with pytest.raises(ValidationFailedError, match="cannot be read"):
        Bundle.open(bundle.path, "net", 1)


def test_a_manifest_of_another_schema_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    path = bundle.path / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"schema": 1', b'"schema": 2'))
    with pytest.raises(ValidationFailedError, match="schema 2"):
        Bundle.open(bundle.path, "net", 1)


def test_a_folder_digest_covers_names_and_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_bytes(b"content")
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").rename(tmp_path / "two" / "sub" / "other")
    assert folder_digest(tmp_path / "one") != folder_digest(tmp_path / "two")
