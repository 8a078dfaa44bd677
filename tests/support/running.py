"""Runs commands as their users do: in a process of its own, with an environment of its own.

Most are forks of a process that has imported MLflow; see `tests.support.forked`, which says what
forks do not show. They build models in their own process, unless those bring code.
"""

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

from tests.support.forked import Forked

_SECONDS = 240
STLAB = "from exporter.cli import main; main()\n"
# A confined process imports all that is needed to build a model, which takes a second or more.
IN_PROCESS = """
from functools import partial
from exporter.commands.export import pipeline
pipeline.export = partial(pipeline.export, isolated=False)
"""
STARTED = [str(Path(sys.executable).with_name("stlab-export"))]
"""``stlab-export`` as a process that is started instead of forked."""

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


def start(
    folder: Path, *arguments: str, driver: str = "", isolated: bool = False, **settings: str
) -> Forked:
    """Start ``stlab``, or code that runs it with the arguments in ``sys.argv``, in a folder.

    Args:
        folder: The working directory.
        arguments: The verb and what comes after it.
        driver: Code to run instead of the command; it finds the arguments in ``sys.argv``.
        isolated: Whether models are built in a process of their own even where they bring no code.
        settings: Variables of the environment.
    """
    code = ("" if isolated else IN_PROCESS) + (driver or STLAB)
    return Forked(arguments, cwd=folder, env=environment(**settings), code=code)


def command(
    folder: Path,
    *arguments: str,
    verb: str = "export",
    driver: str = "",
    program: list[str] | None = None,
    **settings: str,
) -> Ran:
    """Run a command of ``stlab`` to its end in a folder.

    Args:
        folder: The working directory.
        arguments: What comes after the verb.
        verb: Which command.
        driver: Code to run instead of the command; it finds the verb and the arguments in
            ``sys.argv``.
        program: What to run as a process of its own instead of a fork, without the verb.
        settings: Variables of the environment.
    """
    begin = time.perf_counter()
    if program is None:
        process = start(folder, verb, *arguments, driver=driver, **settings)
        try:
            output, log = process.communicate(_SECONDS)
        finally:
            process.kill()
        return Ran(process.wait(), output, log, time.perf_counter() - begin)
    done = subprocess.run(
        [*program, *arguments],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
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
