"""What a repository on an object store does beside what every repository does."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.bundle import Bundle
from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
    ValidationFailedError,
)
from exporter.repository import ObjectRepository, StoreUrl, open_repository
from exporter.repository.object_store import ObjectStore
from exporter.triton.model_config import parse
from tests.support.bundles import make_bundle
from tests.support.moto_s3 import (
    CREDENTIALS,
    S3,
    WRITES,
    open_at,
    process,
    serving,
    set_credentials,
    shared_at,
)

LIVE = "production/models/net/config.pbtxt"
SECRETS = [CREDENTIALS["AWS_SECRET_ACCESS_KEY"], CREDENTIALS["AWS_SESSION_TOKEN"]]


@pytest.fixture
def repository(s3: S3) -> ObjectRepository:
    return shared_at(s3.url())


def export(repository: ObjectRepository, bundle: Bundle) -> None:
    with repository.workspace("net") as work:
        repository.publish(bundle, work)
        repository.activate(bundle, [], work)


def beside(s3: S3) -> list[str]:
    """What lies beside the repository and is not there for good."""
    names = [name.rpartition("/")[2] for name in s3.objects() if "/.models.stlab/" in name]
    return [name for name in names if name != ".identity" and not name.startswith("lock-")]


def served(s3: S3) -> list[int]:
    text = s3.objects().get(LIVE, b"").decode()
    return list(parse(text, where="it").version_policy.specific.versions)


def writes(s3: S3) -> list[str]:
    """Record what is written and deleted from now on."""
    seen: list[str] = []

    def look(request: Mapping[str, Any]) -> bool:
        if request["REQUEST_METHOD"] in {"PUT", "DELETE"}:
            name = request["PATH_INFO"].removeprefix("/bucket/production/models/net/")
            seen.append(f"{request['REQUEST_METHOD']} {name}")
        return False

    s3.falls_silent = look
    return seen


def test_the_manifest_comes_last_and_the_config_after_it(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    seen = writes(s3)
    export(repository, make_bundle(tmp_path))
    order = [name for name in seen if not name.startswith(("PUT /", "DELETE /"))]
    assert order[-3:] == ["PUT 1/manifest.json", "PUT warmup/00000000.bin", "PUT config.pbtxt"]
    assert len(order) == 7, "every object is written once"


def test_the_manifest_is_deleted_first(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    export(repository, make_bundle(tmp_path))
    export(repository, make_bundle(tmp_path, 2))
    seen = writes(s3)
    with repository.workspace("net") as work:
        repository.remove("net", 1, work)
    deleted = [name for name in seen if name.startswith("DELETE 1/")]
    assert deleted[0] == "DELETE 1/manifest.json"
    assert len(deleted) == 5


def test_nothing_is_changed_without_the_lock(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(ConflictError, match="is not held"):
        repository.publish(bundle, tmp_path)
    export(repository, bundle)
    before = s3.objects()
    for change in (
        lambda: repository.publish(make_bundle(tmp_path, 2), tmp_path),
        lambda: repository.restore_config("net", None),
        lambda: repository.remove("net", 7, tmp_path),
        lambda: repository.ensure_locked("net"),
    ):
        with pytest.raises(ConflictError, match="is not held"):
            change()
    assert s3.objects() == before


def test_who_lost_the_lock_changes_nothing(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    export(repository, make_bundle(tmp_path))
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2)
    with repository.workspace("net") as work:
        publication = repository.publish(second, work)
        assert publication is not None
        s3.put("production/.models.stlab/net/lock-000099", b'{"seconds": 60}')  # a successor
        before = s3.objects()
        for change in (
            lambda: repository.activate(second, [], work),
            lambda: repository.restore_config("net", None),
            lambda: repository.unpublish(second, publication, work),
            lambda: repository.remove("net", 2, work),
            lambda: repository.publish(make_bundle(tmp_path, 3), work),
            lambda: repository.ensure_locked("net"),
        ):
            with pytest.raises(ConflictError, match="was lost"):
                change()
        assert s3.objects() == before
    assert repository.is_serving(first)


def work_and_die(url: str, bundle: Bundle, at: int) -> None:
    """Export a bundle, and be killed before a write."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            nonlocal count
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return original(*arguments)

        return write

    for name in WRITES:
        setattr(ObjectStore, name, counted(getattr(ObjectStore, name)))
    export(open_at(url), bundle)


def test_an_export_that_is_killed_anywhere_is_finished_by_the_next(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    export(repository, first)
    start = s3.objects()
    seen = set()
    for at in range(40):
        s3.reset()
        for name, content in start.items():
            s3.put(name, content)
        killed = process(work_and_die, s3.url(), second, at)
        killed.join()
        if killed.exitcode == 0:
            break
        assert killed.exitcode == -signal.SIGKILL
        assert served(s3) in ([1], [2])
        seen.add((served(s3)[0], repository.bundle("net", 2) is not None, len(beside(s3))))
        assert f"production/models/net/{served(s3)[0]}/manifest.json" in s3.objects()
        export(repository, second)
        assert repository.is_serving(second)
        repository.verify(first)
        assert beside(s3) == []
    else:
        pytest.fail("it never came to its end")
    assert at > 10
    assert {(1, False, 0), (1, False, 1), (1, True, 0), (2, True, 0)} <= seen


def test_what_a_killed_one_left_goes_though_another_version_is_exported(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    export(repository, make_bundle(tmp_path))
    sound = s3.objects()
    s3.put("production/.models.stlab/net/unfinished-2", b"")
    s3.put("production/models/net/2/model.onnx", b"half")
    s3.put("production/models/net/warmup/ffffffff.bin", b"nobody's")
    with repository.workspace("net"):
        pass
    assert {name for name in s3.objects() if "lock-" not in name} == {
        name for name in sound if "lock-" not in name
    }


def test_what_the_live_config_names_is_never_cleaned_away(
    s3: S3, repository: ObjectRepository, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    export(repository, bundle)
    s3.put("production/.models.stlab/net/unfinished-1", b"")
    s3.delete("production/models/net/1/manifest.json")
    before = s3.objects()
    with repository.workspace("net") as work:
        with pytest.raises(ConflictError, match="is served"):
            repository.publish(make_bundle(tmp_path, weights=b"others"), work)
        assert {n: c for n, c in s3.objects().items() if "/models/" in n} == {
            n: c for n, c in before.items() if "/models/" in n
        }


def test_a_store_that_dies_midway_leaves_nothing_visible(tmp_path: Path, s3: S3) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2)
    repository = open_at(s3.url())
    export(repository, first)
    before = s3.objects()[LIVE]
    s3.falls_silent = lambda request: "2/model.onnx" in request["PATH_INFO"]
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        export(repository, second)
    assert caught.value.exit_code == 6
    assert s3.objects()[LIVE] == before
    assert repository.store.address.for_server() == s3.url()
    s3.falls_silent, s3.is_silent = None, False
    assert repository.bundle("net", 2) is None
    s3.age("production/.models.stlab/net/lock-000002", 100)
    export(repository, second)
    assert served(s3) == [2]
    assert beside(s3) == []


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_credentials(monkeypatch)
    with serving() as server:
        server.reset()
        url = server.url()
    begin = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        open_at(url).served_versions("net")
    assert time.monotonic() - begin < 15
    assert caught.value.hint


def test_a_port_that_never_answers(monkeypatch: pytest.MonkeyPatch, s3: S3) -> None:
    monkeypatch.setattr("exporter.repository.object_store.OPERATION_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"s3://http://127.0.0.1:{silent.getsockname()[1]}/bucket/models"
        with pytest.raises(UnavailableError, match="does not answer"):
            open_at(url).versions("net")


def test_no_such_bucket(s3: S3, tmp_path: Path) -> None:
    repository = open_at(s3.url().replace("/bucket/", "/other/"))
    for ask in (
        lambda: repository.versions("net"),
        lambda: repository.store.read("name"),
        lambda: repository.store.create("name", b""),
        lambda: repository.store.replace("name", b""),
    ):
        with pytest.raises(NotFoundError, match="the bucket 'other'"):
            ask()


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "ExpiredToken"])
def test_refused_credentials(s3: S3, code: str) -> None:
    s3.refuses = (
        f"<Error><Code>{code}</Code><Message>{' '.join(SECRETS)}</Message></Error>".encode()
    )
    repository = open_at(s3.url())
    for ask in (
        lambda: repository.versions("net"),
        lambda: repository.store.read("name"),
        lambda: repository.store.create("name", b""),
    ):
        with pytest.raises(UsageError, match=f"denies access.*{code}") as caught:
            ask()
        said = caught.value.message + caught.value.hint
        assert "AWS_SECRET_ACCESS_KEY" in said
        assert not [secret for secret in SECRETS if secret in said]


def test_no_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="NoCredentialsError"):
        open_at(s3.url()).versions("net")


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/models", "s3fs", "s3"),
        ("gs://bucket/models", "gcsfs", "gcs"),
        ("az://container/models", "adlfs", "azure"),
    ],
)
def test_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"requires {package}") as caught:
        open_repository(url).versions("net")
    assert caught.value.hint == f"pip install 'stlab[{extra}]'"


def test_an_upload_that_arrives_otherwise_is_noticed(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_at(s3.url())
    files = repository.store._files
    put_file = files.put_file

    def spoils(source: str, target: str, **options: Any) -> None:
        put_file(source, target, **options)
        if target.endswith("model.onnx"):
            s3.put(target.removeprefix("bucket/"), b"spoiled")

    monkeypatch.setattr(files, "put_file", spoils)
    with pytest.raises(
        UnavailableError, match=r"checksum mismatch after upload of .*1/model\.onnx"
    ):
        export(repository, make_bundle(tmp_path))
    assert not [name for name in s3.objects() if "/models/" in name]


def test_large_files_are_read_in_pieces(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.repository.object_store._CHUNK", 1000)
    repository = open_at(s3.url())
    bundle = make_bundle(tmp_path, weights=bytes(range(256)) * 13)
    export(repository, bundle)
    found = repository.bundle("net", 1)
    assert found is not None
    assert not (found.path / "model.onnx").exists()
    fetched = repository.fetch(found, tmp_path / "fetched")
    assert (fetched.path / "model.onnx").read_bytes() == bytes(range(256)) * 13
    s3.put("production/models/net/1/model.onnx", bytes(range(256)) * 12)
    with pytest.raises(ValidationFailedError, match=r"model.onnx is not the file"):
        repository.fetch(found, tmp_path / "again")


def test_what_was_fetched_goes_with_the_repository(s3: S3, tmp_path: Path) -> None:
    repository = open_at(s3.url())
    export(repository, make_bundle(tmp_path))
    found = repository.bundle("net", 1)
    assert found is not None
    assert found.path.is_dir()
    del repository
    gc.collect()
    assert not found.path.exists()


def test_folder_markers_are_no_files(s3: S3, repository: ObjectRepository, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    export(repository, bundle)
    for name in ("net/", "net/1/", "net/1/warmup/"):
        s3.put(f"production/models/{name}", b"")
    repository.verify(bundle)
    assert repository.is_serving(bundle)


def test_every_error_has_a_hint() -> None:
    for url in ("s3://bucket", "ftp://host/models"):
        with pytest.raises(StlabError) as caught:
            ObjectRepository(StoreUrl.parse(url))
        assert caught.value.hint
