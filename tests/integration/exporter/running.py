"""Runs the command as its users do: in a process of its own, with an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(sys.executable).parent / "stlab-export"
KEYS = {
    "schema", "status", "model", "version", "alias", "previous", "bundle", "parity", "repository",
    "served_version", "seconds", "plan", "report", "error",
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The one object on stdout."""
        (line,) = self.stdout.splitlines()
        content = json.loads(line)
        assert set(content) == KEYS
        assert content["schema"] == 1
        assert (content["error"] is None) == (self.code == 0)
        if content["error"] is not None:
            assert content["status"] == "failed"
            assert set(content["error"]) == {"kind", "message", "hint"}
            assert content["error"]["hint"], content["error"]
        return dict(content)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines on stderr, where ``LOG_FORMAT=json``."""
        return [json.loads(line) for line in self.stderr.splitlines()]


def environment(**settings: str) -> dict[str, str]:
    """What the command sees: nothing of the settings of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "STLAB_CACHE" or not name.startswith(("CI", "MLFLOW_", "STLAB_", "LOG_"))
    }
    return {**kept, **settings}


def command(
    folder: Path, *arguments: str, program: list[str] | None = None, **settings: str
) -> Ran:
    """Run ``stlab-export`` in a folder."""
    script = [str(SCRIPT)] if SCRIPT.is_file() else [sys.executable, "-m", "exporter.cli", "export"]
    begin = time.perf_counter()
    done = subprocess.run(
        [*(program or script), *arguments],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr, time.perf_counter() - begin)


def files(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder; empty where there is none."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A filesystem of its own, of a limited size."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("a filesystem can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
