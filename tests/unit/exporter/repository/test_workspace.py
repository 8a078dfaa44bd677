from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.errors import ConflictError, UnavailableError
from exporter.repository import LocalRepository
from exporter.repository.workspace import open_workspace

HOLD = """
import sys, time
from pathlib import Path
from exporter.repository.workspace import open_workspace
with open_workspace(Path(sys.argv[1]), "net") as work:
    (work / "half-written").write_bytes(b"x")
    print(work, flush=True)
    time.sleep(60)
"""


def hold(root: Path) -> tuple[subprocess.Popen[str], Path]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    return holder, Path(holder.stdout.readline().strip())


def test_it_lies_beside_the_repository_and_is_empty(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    with open_workspace(root, "net") as work:
        assert list(work.iterdir()) == []
        assert root not in work.parents
        assert work.stat().st_dev == tmp_path.stat().st_dev
        (work / "file").touch()
    assert not work.exists()
    assert not root.exists()


def test_another_process_is_named(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    holder, left = hold(root)
    try:
        with pytest.raises(ConflictError) as caught, open_workspace(root, "net"):
            pytest.fail("two at once")
        assert f"process {holder.pid} on " in caught.value.message
        with open_workspace(root, "other"):
            pass  # another model is another matter
        assert left.is_dir()
    finally:
        holder.kill()
        holder.communicate()


def test_a_holder_that_died_blocks_nobody_and_is_cleaned_up_after(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    holder, left = hold(root)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert (left / "half-written").is_file()
    with open_workspace(root, "net") as work:
        assert not left.exists()
        lock = work.parent / "lock"
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert lock.read_text() == ""


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), open_workspace(tmp_path / "r", "net"):
            raise ZeroDivisionError


def test_a_model_may_have_the_name_of_any_file_of_ours(tmp_path: Path) -> None:
    root = tmp_path / "models"
    repository = LocalRepository(root)
    names = ["identity", "lock", "work-1", "net"]
    for name in names:
        with repository.workspace(name):
            identity = repository.identity()
    assert len(identity) == 32
    for name in names:
        with (
            repository.workspace(name),
            pytest.raises(ConflictError),
            repository.workspace(name),
        ):
            pytest.fail("two at once")
    assert repository.identity() == identity


def test_a_repository_of_an_earlier_release_keeps_its_identity(tmp_path: Path) -> None:
    repository, beside = LocalRepository(tmp_path / "models"), tmp_path / ".models.stlab"
    beside.mkdir()
    (beside / "identity").write_text("a" * 32 + "\n")
    assert repository.identity() == "a" * 32
    with repository.workspace("net"):
        assert repository.identity() == "a" * 32
    assert (beside / "identity").read_text() == "a" * 32 + "\n", "an earlier release reads it"
    for _ in range(2):
        with repository.workspace("identity"):
            assert repository.identity() == "a" * 32
    with repository.workspace("net"):
        assert repository.identity() == "a" * 32


def test_a_repository_that_a_model_called_identity_broke_works_again(tmp_path: Path) -> None:
    (tmp_path / ".models.stlab" / "identity").mkdir(parents=True)
    repository = LocalRepository(tmp_path / "models")
    assert repository.identity() == ""
    with repository.workspace("net"):
        assert len(repository.identity()) == 32


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(tmp_path: Path, code: int) -> None:
    with pytest.raises(UnavailableError) as caught, open_workspace(tmp_path / "r", "net"):
        raise OSError(code, os.strerror(code))
    assert os.strerror(code) in caught.value.message
    assert "disk" in caught.value.hint


def test_other_errors_keep_their_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_workspace(tmp_path / "r", "net"):
        raise FileNotFoundError(errno.ENOENT, "gone")
