"""A damaged cache of the embedded server repairs itself before anything of it is run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.triton import runtime as runtimes
from exporter.triton.installation import cache_directory
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import Runtime, ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton.test_server import add_model

pytestmark = pytest.mark.triton


@pytest.fixture
def copy(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, into which the developer's is copied instead of what pip fetches."""
    original = cache_directory() / "runtime"
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(["cp", "-a", str(original), str(cache)], check=True)
    monkeypatch.setenv("STLAB_CACHE", str(cache))
    monkeypatch.setattr(runtimes, "find_tritonserver", lambda: None)

    def install(folder: Path, packages: list[str], _lock: int) -> None:
        name = "-".join(packages[-1].split("=="))
        (source,) = (path for path in original.glob(f"{name}*") if path.is_dir())
        shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)

    monkeypatch.setattr(runtimes, "install_packages", install)
    monkeypatch.setattr(runtimes, "install_environment", install)
    return cache / "runtime"


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_it_is_found_and_repaired(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    target = release(DEFAULT_RELEASE)
    before = ensure_runtime(target, progress=said.append)
    assert not said, "a copy is as good as the original"
    server = only(copy, "nvidia-pytriton-*/pytriton/tritonserver")
    site = only(copy, f"onnxruntime-{before.onnxruntime}-*/lib/python*/site-packages")
    assert before.backend_directory is not None
    backend = before.backend_directory / "onnxruntime" / "model.py"
    damages: dict[str, Callable[[], object]] = {
        "nvidia-pytriton": lambda: os.truncate(server / "bin" / "tritonserver", 1 << 20),
        "onnxruntime-": lambda: shutil.rmtree(site / "numpy"),
        "onnxruntime": lambda: (site / "usercustomize.py").write_text("raise SystemExit"),
        "backends-": lambda: backend.write_text("raise SystemExit"),
    }
    for name, damage in damages.items():
        caplog.clear()
        damage()
        runtime = ensure_runtime(target)
        told = caplog.messages
        assert any(f"/{name}" in line and "is damaged" in line for line in told), (name, told)
    repository = tmp_path / "repository"
    add_model(repository)
    with TritonServer.start(runtime, str(repository), private=True) as started:
        started.wait_live()
        with started.client() as client:
            client.repository.load("identity")
    # Running it changed nothing: bytecode, say.
    runtime.check()
