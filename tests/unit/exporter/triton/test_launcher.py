"""The ``tritonserver`` that is written into a virtual environment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from exporter.triton.launcher import install_launcher
from exporter.triton.runtime import LAUNCHER_MARK

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_is_written_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = install_launcher(tmp_path)
    assert launcher == tmp_path / "tritonserver"
    text = launcher.read_text()
    assert LAUNCHER_MARK in text
    assert sys.executable in text
    assert launcher.stat().st_mode & 0o111
    launcher.write_text(f"# {LAUNCHER_MARK} of an older version")
    assert install_launcher(tmp_path) == launcher
    assert launcher.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["tritonserver"]


def test_never_over_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    real = tmp_path / "tritonserver"
    real.write_bytes(b"\x7fELF\xff\xfe")
    assert install_launcher(tmp_path) is None
    assert real.read_bytes() == b"\x7fELF\xff\xfe"
    real.unlink()
    real.symlink_to(tmp_path / "gone")
    assert install_launcher(tmp_path) is None
    assert real.is_symlink()


def test_never_beside_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "elsewhere" / "tritonserver"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    monkeypatch.setenv("PATH", str(real.parent))
    assert install_launcher(tmp_path) is None
    assert not (tmp_path / "tritonserver").exists()
