"""Which server is run."""

from __future__ import annotations

import os
import platform
import shutil
from typing import TYPE_CHECKING

import pytest

from exporter.errors import ConflictError, UnavailableError
from exporter.triton import backend_directory, runtime
from exporter.triton.installation import install_once, make_folder
from exporter.triton.integrity import check_owner
from exporter.triton.keys import ServerKey
from exporter.triton.releases import release
from exporter.triton.runtime import LAUNCHER_MARK, ensure_runtime, find_tritonserver

if TYPE_CHECKING:
    from pathlib import Path


def executable(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tritonserver"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_server_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = executable(tmp_path / "ours", f"#!/bin/sh\n# {LAUNCHER_MARK}\n")
    monkeypatch.setenv("PATH", str(ours.parent))
    assert find_tritonserver() is None
    real = executable(tmp_path / "real", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{ours.parent}:{real.parent}:")
    found = ensure_runtime(release("24.10"))
    assert found.executable == real
    assert not found.embedded
    assert found.environment == {}
    assert found.backend_directory is None


def test_another_platform_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UnavailableError, match="Linux x86_64 only, not on Linux aarch64"):
        ensure_runtime(release("24.10"))


def test_a_python_without_its_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(runtime.sysconfig, "get_config_var", lambda _name: None)
    monkeypatch.setattr(runtime.sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(runtime, "_SYSTEM_LIBRARIES", ())
    monkeypatch.setattr(runtime.sysconfig, "get_python_version", lambda: "3.11")
    with pytest.raises(UnavailableError, match="built without it") as caught:
        ensure_runtime(release("24.10"))
    assert "libpython3.11.so.1.0" in caught.value.message


def test_a_changed_backend_gets_a_new_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "server"
    for path in ("python_backend_stubs/3.11/triton_python_backend_stub", "backends/python/lib.so"):
        (server / path).parent.mkdir(parents=True)
        (server / path).write_text("binary")
    packaged = tmp_path / "packaged"
    shutil.copytree(backend_directory.PACKAGED_BACKENDS, packaged)
    monkeypatch.setattr(backend_directory, "PACKAGED_BACKENDS", packaged)
    cache = tmp_path / "cache"
    first = backend_directory.assemble_backends(cache, server, "3.11").folder
    assert backend_directory.assemble_backends(cache, server, "3.11").folder == first
    assert (first / "python" / "triton_python_backend_stub").exists()
    # The server refuses a library that leads out of the directory.
    assert not (first / "python" / "lib.so").is_symlink()
    (packaged / "shared" / "errors.py").write_text("changed = True")
    second = backend_directory.assemble_backends(cache, server, "3.11").folder
    assert second != first
    for name in ("onnxruntime", "pytorch"):
        assert (second / name / "model.py").is_file()
        shared = second / name / "stlab_backends" / "shared" / "errors.py"
        assert shared.read_text() == "changed = True"


def test_a_cache_that_a_shell_takes_apart_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("STLAB_CACHE", str(tmp_path / "a cache"))
    with pytest.raises(UnavailableError) as caught:
        ensure_runtime(release("24.10"))
    assert "STLAB_CACHE" in caught.value.hint


def test_a_cache_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are run."""
    monkeypatch.setenv("PATH", str(tmp_path))
    cache = tmp_path / "cache"
    (cache / "runtime").mkdir(parents=True)
    monkeypatch.setenv("STLAB_CACHE", str(cache))
    for folder in (cache, cache / "runtime"):
        folder.chmod(0o777)
        with pytest.raises(ConflictError, match="can be written by everybody") as caught:
            ensure_runtime(release("24.10"))
        assert caught.value.exit_code == 5
        assert "STLAB_CACHE" in caught.value.hint
        assert "chmod" in caught.value.hint
        folder.chmod(0o755)
    if os.geteuid() == 0:  # only root can give a folder away
        os.chown(cache / "runtime", 65534, 65534)
        with pytest.raises(ConflictError, match="belongs to another user"):
            ensure_runtime(release("24.10"))
        (cache / "runtime").chmod(0o777)  # as a volume that was made for us
        with pytest.raises(ConflictError) as caught:
            ensure_runtime(release("24.10"))
        assert str(cache / "runtime" / "stlab") in caught.value.hint


def test_a_cache_that_is_made_is_not_refused_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the umask takes nothing away, and whatever makes the cache first."""
    before = os.umask(0)
    try:
        for number, first in enumerate((
            lambda cache: install_once(cache / "runtime" / "x", lambda *_: None),
            lambda _: ServerKey.claim(8001),
            lambda cache: make_folder(cache / "tensorrt"),
        )):  # fmt: skip
            cache = tmp_path / f"given-{number}" / "cache"
            monkeypatch.setenv("STLAB_CACHE", str(cache))
            first(cache)
            for folder in (cache, *(path for path in cache.iterdir() if path.is_dir())):
                check_owner(folder)
    finally:
        os.umask(before)
