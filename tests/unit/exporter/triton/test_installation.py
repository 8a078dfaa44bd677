"""Installing into the cache: once, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporter.errors import UnavailableError, UsageError
from exporter.triton import installation
from exporter.triton.installation import cache_directory, install_once

# Fills a folder slowly; the child that holds the lock outlives its parent, as pip might.
INSTALLER = """
import subprocess, sys, time
from pathlib import Path
from exporter.triton.installation import install_once

target, seconds = Path(sys.argv[1]), float(sys.argv[2])

def build(folder, lock):
    log = target.parent / "builds"
    with log.open("a") as file:
        file.write("build\\n")
    (folder / "first").write_text("1")
    child = subprocess.Popen(["sleep", str(seconds)], pass_fds=(lock,))
    print("building", flush=True)
    child.wait()
    (folder / "second").write_text("2")

install_once(target, build)
print("done", flush=True)
"""


def installer(target: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INSTALLER, str(target), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def builds(target: Path) -> int:
    return (target.parent / "builds").read_text().count("build")


def leftovers(target: Path) -> list[Path]:
    return list(target.parent.glob(f"{target.name}.partial-*"))


def write(folder: Path, _lock: int) -> None:
    (folder / "file").write_text("content")


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "target"
    assert install_once(target, write) == target
    assert (target / "file").read_text() == "content"

    def fail(_folder: Path, _lock: int) -> None:
        pytest.fail("built again")

    assert install_once(target, fail) == target
    assert not leftovers(target)


def test_two_at_once_build_once(tmp_path: Path) -> None:
    target = tmp_path / "target"
    processes = [installer(target, 0.5) for _ in range(3)]
    for process in processes:
        output, _ = process.communicate(timeout=30)
        assert output.endswith("done\n")
    assert builds(target) == 1
    assert {path.name for path in target.iterdir()} == {"first", "second"}


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def build(folder: Path, _lock: int) -> None:
        (folder / "file").write_text("half")
        raise UnavailableError("no wheel")

    with pytest.raises(UnavailableError, match="no wheel"):
        install_once(target, build)
    assert not target.exists()
    assert not leftovers(target)
    install_once(target, write)
    assert (target / "file").exists()


def test_a_killed_build_is_removed_and_its_children_are_waited_for(tmp_path: Path) -> None:
    target = tmp_path / "target"
    killed = installer(target, 1.5)
    assert read_line(killed) == "building"
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    assert killed.stdout is not None
    killed.stdout.close()
    assert not target.exists()
    assert len(leftovers(target)) == 1
    started = time.monotonic()
    output, _ = installer(target, 0).communicate(timeout=30)
    assert output.endswith("done\n")
    # The child of the killed one still held the lock.
    assert time.monotonic() - started > 0.5
    assert builds(target) == 2
    assert (target / "second").exists()
    assert not leftovers(target)


def test_what_is_no_longer_usable_is_built_again(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "python").symlink_to(tmp_path / "gone")

    def build(folder: Path, _lock: int) -> None:
        (folder / "python").write_text("new")

    install_once(target, build, usable=lambda folder: (folder / "python").exists())
    assert (target / "python").read_text() == "new"


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError) as caught:
        install_once(tmp_path / "file" / "target", write)
    assert "STLAB_CACHE" in caught.value.hint


def test_pip_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(UnavailableError) as caught:
            installation.install_packages(tmp_path / "target", ["no-such-package==1.0"], lock)
    finally:
        os.close(lock)
    assert "pip cannot install no-such-package==1.0" in caught.value.message
    assert "No matching distribution" in caught.value.message
    assert "package index" in caught.value.hint


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STLAB_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("STLAB_CACHE")
    assert cache_directory() == Path.home() / ".cache" / "stlab"


def test_cache_directory_of_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STLAB_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(UsageError) as caught:
        cache_directory()
    assert "STLAB_CACHE" in caught.value.hint
