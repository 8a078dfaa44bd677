"""What is run is what was installed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.errors import UnavailableError
from exporter.triton.integrity import Installed, install_checked

Damage = Callable[[Path], object]


def build(folder: Path, _lock: int) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "code.py").write_text("print('as installed')")
    (folder / "package" / "library.so").write_bytes(bytes(range(256)) * 64)
    (folder / "link").symlink_to("package")


def cut(folder: Path) -> None:
    os.truncate(folder / "package" / "library.so", 100)


def same_size(folder: Path) -> None:
    """As somebody would who hides it: size and times are those of before."""
    file = folder / "package" / "code.py"
    before = file.stat()
    file.write_text("print('by others   ')")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def replaced(folder: Path) -> None:
    file = folder / "package" / "code.py"
    file.rename(folder.parent / "away")
    shutil.copy2(folder.parent / "away", file)
    (folder.parent / "away").unlink()
    file.write_text("print('as installed') # nearly")


def record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.files.json")


DAMAGES: dict[str, Damage] = {
    "a file is cut": cut,
    "a file has other text": same_size,
    "a file is replaced": replaced,
    "a file is gone": lambda folder: (folder / "package" / "library.so").unlink(),
    "a package is gone": lambda folder: shutil.rmtree(folder / "package"),
    "all is gone": shutil.rmtree,
    "a module was added": lambda folder: (folder / "sitecustomize.py").write_text("1"),
    "a link leads elsewhere": lambda folder: (
        (folder / "link").unlink(),
        (folder / "link").symlink_to("/tmp"),
    ),
    "a file became a link": lambda folder: (
        (folder / "package" / "code.py").unlink(),
        (folder / "package" / "code.py").symlink_to("/etc/hostname"),
    ),
    "a file can be written by all": lambda folder: (folder / "package" / "code.py").chmod(0o666),
    "a folder can be written by all": lambda folder: (folder / "package").chmod(0o777),
    "the record is gone": lambda folder: record(folder).unlink(),
    "the record is cut": lambda folder: os.truncate(record(folder), 50),
    "the record is nonsense": lambda folder: record(folder).write_text('{"schema": 1}'),
    "the record can be written by all": lambda folder: record(folder).chmod(0o666),
}


def test_damage_is_found_and_installed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "target"
    for what, damage in DAMAGES.items():
        install_checked(folder, build)
        caplog.clear()
        damage(folder)
        installed = install_checked(folder, build)
        assert not installed.differences(), what
        assert (folder / "package" / "code.py").read_text() == "print('as installed')", what
        assert sorted(path.name for path in folder.iterdir()) == ["link", "package"], what
        if "record" not in what and "all is" not in what:
            (said,) = caplog.messages
            assert "target is damaged (" in said, what
    assert {path.name for path in tmp_path.iterdir()} == {
        "target",
        "target.lock",
        "target.files.json",
    }


def test_what_is_whole_is_not_built_again(tmp_path: Path) -> None:
    def fail(_folder: Path, _lock: int) -> None:
        pytest.fail("built again")

    folder = tmp_path / "target"
    install_checked(folder, build)
    install_checked(folder, fail)
    # A copy has other inodes and times; it is read once, and then known.
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    shutil.copy(record(folder), record(copy))
    before = record(copy).read_text()
    install_checked(copy, fail)
    assert record(copy).read_text() != before
    assert json.loads(record(copy).read_text())["schema"] == 1


def test_other_users_cannot_write_what_is_installed(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        install_checked(tmp_path / "target", build)
    finally:
        os.umask(before)
    for path in (tmp_path / "target").rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o022


def test_a_change_after_the_look_is_found(tmp_path: Path) -> None:
    """Even where the record was forged as well: it is not read again."""
    folder = tmp_path / "target"
    installed = install_checked(folder, build)
    installed.check()
    os.utime(folder / "package" / "code.py")
    installed.check()
    (folder / "package" / "code.py").write_text("print('by the model')")
    Installed.of(folder).save()
    with pytest.raises(UnavailableError, match=r"package/code\.py was changed") as caught:
        installed.check()
    assert "again" in caught.value.hint
