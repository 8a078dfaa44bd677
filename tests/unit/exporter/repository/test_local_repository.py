"""What a repository in a local folder does beside what every repository does."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from exporter.errors import UsageError, ValidationFailedError
from exporter.repository import LocalRepository
from exporter.repository.local_repository import Publication
from tests.support.bundles import make_bundle


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


def test_a_new_model_arrives_whole(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    assert repository.publish(bundle, staging) == Publication(is_new_model=True)
    assert set(content(repository)) == {
        "net/config.pbtxt",
        "net/warmup/00000000.bin",
        "net/1/model.onnx",
        "net/1/config.pbtxt",
        "net/1/manifest.json",
        "net/1/report.json",
        "net/1/warmup/00000000.bin",
    }
    assert repository.is_serving(bundle)
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
    repository.unpublish(again, publication, staging)
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


def test_a_config_that_is_cut_anywhere_is_damaged_and_healed(
    repository: LocalRepository, staging: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    repository.publish(bundle, staging)
    path = repository.root / "net" / "config.pbtxt"
    whole = path.read_bytes()
    for size in range(len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValidationFailedError):
            repository.served_versions("net")
        assert not repository.is_serving(bundle)
    assert repository.publish(bundle, staging) is None
    repository.activate(bundle, [], staging)
    assert repository.is_serving(bundle)
