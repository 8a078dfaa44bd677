"""Every error of the exporter says what to do about it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import exporter
from exporter import errors

ROOT = Path(exporter.__file__).parent
KINDS = {name for name in errors.__all__ if name[0].isupper()}


def raised(folder: Path) -> Iterator[tuple[Path, ast.Call]]:
    for path in folder.rglob("*.py"):
        if "backends" in path.relative_to(folder).parts:
            continue  # they run in the server, with errors of its own
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in KINDS:
                    yield path, node


def test_every_error_has_a_hint() -> None:
    calls = list(raised(ROOT))
    assert len(calls) > 100
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in calls
        # ``**error`` gives on what another process or a result holds.
        if not any(keyword.arg in ("hint", None) for keyword in call.keywords)
    ]
    assert not without
