from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.config import parse
from exporter.errors import ConflictError, UsageError
from exporter.interface import Interface, Tensor
from exporter.repository import LocalRepository
from exporter.repository.local import Publication

from .bundles import INTERFACE, make_bundle


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    return LocalRepository(tmp_path / "repository")


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def content(repository: LocalRepository) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(repository.root)): path.read_bytes()
        for path in repository.root.rglob("*")
        if path.is_file()
    }


def served(repository: LocalRepository) -> list[int]:
    text = (repository.root / "net" / "config.pbtxt").read_text()
    return list(parse(text, where="it").version_policy.specific.versions)


def test_a_new_model_arrives_whole(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    assert repository.publish(bundle, staging) == Publication(fresh=True)
    assert set(content(repository)) == {
        "net/config.pbtxt",
        "net/warmup/00000000.bin",
        "net/1/model.onnx",
        "net/1/config.pbtxt",
        "net/1/manifest.json",
        "net/1/report.json",
        "net/1/warmup/00000000.bin",
    }
    assert repository.serves(bundle)
    assert repository.publish(bundle, staging) is None


def test_a_server_under_another_user_can_read_it(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "model.onnx").chmod(0o600)
    bundle.path.chmod(0o700)
    repository.publish(bundle, staging)
    second = make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    (second.path / "warmup" / "01010101.bin").chmod(0o600)
    repository.publish(second, staging)
    repository.activate(second, [], staging)
    for path in (repository.root / "net").rglob("*"):
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_publishing_alone_serves_nothing(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2)
    repository.publish(first, staging)
    before = (repository.root / "net" / "config.pbtxt").read_bytes()
    assert repository.publish(second, staging) == Publication()
    assert (repository.root / "net" / "config.pbtxt").read_bytes() == before
    assert (repository.serves(first), repository.serves(second)) == (True, False)


def test_what_the_manifest_does_not_name_is_not_published(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "libtriton_onnxruntime.so").write_bytes(b"\x7fELF")
    (bundle.path / "model.py").write_text("raise SystemExit")
    repository.publish(bundle, staging)
    assert not {"libtriton_onnxruntime.so", "model.py"} & {
        path.name for path in repository.root.rglob("*")
    }


def test_switching_and_going_back(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2)
    repository.publish(first, staging)
    before = content(repository)
    publication = repository.publish(second, staging)
    assert publication is not None
    kept = repository.activate(second, [], staging)
    assert served(repository) == [2]
    assert repository.serves(second)
    repository.withdraw(second, publication, staging)
    assert repository.serves(second), "what the live config names stays"
    repository.go_back("net", kept)
    assert served(repository) == [1]
    repository.withdraw(second, publication, staging)
    assert content(repository) == before
    assert list(staging.rglob("removed-*")) == []


def test_a_shared_warmup_file_survives_a_withdrawal(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    repository.publish(make_bundle(tmp_path), staging)
    shared, own = make_bundle(tmp_path, 2), make_bundle(tmp_path, 3, warmup=b"\1" * 16)
    for bundle in (shared, own):
        publication = repository.publish(bundle, staging)
        assert publication is not None
        repository.withdraw(bundle, publication, staging)
    names = [path.name for path in (repository.root / "net" / "warmup").iterdir()]
    assert names == ["00000000.bin"]


def test_withdrawing_the_only_version_leaves_no_model(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    publication = repository.publish(bundle, staging)
    assert publication is not None
    repository.withdraw(bundle, publication, staging)
    assert list(repository.root.iterdir()) == []


def test_two_versions_are_served_side_by_side(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    # Other warm-up data, so that the two configs differ.
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    repository.publish(first, staging)
    repository.publish(second, staging)
    repository.activate(second, [1], staging)
    assert served(repository) == [1, 2]
    assert repository.serves(first)
    assert repository.serves(second)


def test_other_interfaces_cannot_be_served_together(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    wider = Interface((Tensor("x", "FP32", ("n", 5)),), INTERFACE.outputs)
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2, interface=wider)
    repository.publish(first, staging)
    repository.check_agreement(second, [])
    with pytest.raises(ConflictError, match=r"version 1 .* its interface is not"):
        repository.check_agreement(second, [1])


def test_a_served_version_is_never_overwritten(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    repository.publish(make_bundle(tmp_path), staging)
    before = content(repository)
    with pytest.raises(ConflictError, match="never overwritten"):
        repository.publish(make_bundle(tmp_path, weights=b"others"), staging)
    assert content(repository) == before


def test_a_version_that_is_not_served_makes_way_and_comes_back(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    repository.publish(make_bundle(tmp_path), staging)
    repository.publish(make_bundle(tmp_path, 2, weights=b"old"), staging)
    before = content(repository)
    again = make_bundle(tmp_path, 2, weights=b"new")
    publication = repository.publish(again, staging)
    assert publication is not None
    assert (repository.root / "net" / "2" / "model.onnx").read_bytes() == b"new"
    repository.withdraw(again, publication, staging)
    assert content(repository) == before


def test_a_served_version_that_was_harmed_is_mended(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    repository.publish(bundle, staging)
    before = content(repository)
    for name, damage in (("1/model.onnx", b"damage"), ("warmup/00000000.bin", b"")):
        path = repository.root / "net" / name
        path.unlink()  # the bundle's own file is linked to it
        path.write_bytes(damage)
    assert repository.publish(bundle, staging) is None, "nothing that anybody would want back"
    assert content(repository) == before
    assert repository.serves(bundle)


@pytest.mark.parametrize("what", ["version", "policy", "code"])
def test_what_others_made_is_left_alone(
    repository: LocalRepository, staging: Path, tmp_path: Path, what: str
) -> None:
    bundle = make_bundle(tmp_path)
    folder = repository.root / "net"
    if what == "version":
        (folder / "3").mkdir(parents=True)
        (folder / "3" / "model.onnx").write_bytes(b"theirs")
    else:
        repository.publish(bundle, staging)
        if what == "policy":
            (folder / "config.pbtxt").write_text('backend: "onnxruntime"')
        else:
            (folder / "libtriton_onnxruntime.so").write_bytes(b"\x7fELF")
    before = content(repository)
    with pytest.raises(ConflictError, match="was not made by stlab alone"):
        repository.publish(make_bundle(tmp_path, 2), staging)
    assert not repository.serves(bundle)
    assert content(repository) == before


def test_what_is_made_can_be_read_by_others(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        repository.publish(make_bundle(tmp_path), staging)
        shutil.rmtree(repository.root / "net" / "warmup")
        repository.publish(make_bundle(tmp_path, 2), staging)
    finally:
        os.umask(before)
    for path in (repository.root, repository.root / "net" / "warmup"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755, path


@pytest.mark.parametrize("harm", ["model", "warmup", "emptied", "added", "config", "versions"])
def test_what_was_harmed_is_not_served(
    repository: LocalRepository, staging: Path, tmp_path: Path, harm: str
) -> None:
    bundle = make_bundle(tmp_path)
    repository.publish(bundle, staging)
    folder = repository.root / "net"
    config = (folder / "config.pbtxt").read_text()
    if harm == "model":
        (folder / "1" / "model.onnx").write_bytes(b"WEIGHTS")
    elif harm == "warmup":
        (folder / "warmup" / "00000000.bin").unlink()
    elif harm == "emptied":
        (folder / "warmup" / "00000000.bin").write_bytes(b"")
    elif harm == "added":
        (folder / "1" / "libtriton_onnxruntime.so").write_bytes(b"\x7fELF")
    elif harm == "config":
        (folder / "config.pbtxt").write_text(config.replace("count: 1\n", "count: 2\n", 1))
    else:
        (folder / "config.pbtxt").write_text(config.replace("versions: 1", "versions: 2"))
    assert not repository.serves(bundle)


def test_a_failed_publication_leaves_nothing(
    repository: LocalRepository,
    staging: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.publish(make_bundle(tmp_path), staging)
    before = content(repository)
    second = make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "2":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        repository.publish(second, staging)
    assert content(repository) == before


def test_a_root_that_is_a_file_is_the_users_mistake(tmp_path: Path, staging: Path) -> None:
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        LocalRepository(root).publish(make_bundle(tmp_path), staging)


def test_a_version_without_manifest_is_nobodys(repository: LocalRepository, tmp_path: Path) -> None:
    (repository.root / "net" / "1").mkdir(parents=True)
    assert repository.bundle("net", 1) is None
    assert repository.served("net") == ()
    assert not repository.serves(replace(make_bundle(tmp_path)))
