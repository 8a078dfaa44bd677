"""Which modules are compiled for a process that may not write their bytecode itself."""

from __future__ import annotations

import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from exporter.system.bytecode import compile_modules


def test_libraries_are_compiled_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    for name in ("site-packages/one.py", "site-packages/data.txt", "elsewhere.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    foreign = (
        tmp_path / "elsewhere.py",
        site / ".." / "elsewhere.py",
        site / "data.txt",
        site / "missing.py",
        f"{site / 'one.py'}\n{tmp_path / 'elsewhere.py'}",
    )
    compile_modules([*map(str, foreign), str(site / "one.py")])
    made = sorted(path.name for path in tmp_path.rglob("*.pyc"))
    assert made == [Path(cache_from_source("one.py")).name]
