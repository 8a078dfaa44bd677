"""Listening to processes that say too much, or do not end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from exporter.system.piped import LineTooLongError, Listened


def listen(folder: Path, code: str, seconds: float = 60.0) -> Listened:
    return Listened([sys.executable, "-c", code], dict(os.environ), folder, seconds)


def test_lines_and_the_end_of_errors(tmp_path: Path) -> None:
    process = listen(
        tmp_path,
        "import sys\n"
        "print('one'); print('two')\n"
        "for number in range(100_000): print(number, file=sys.stderr)\n"
        "sys.exit(4)",
    )
    assert list(process.lines()) == [b"one", b"two"]
    process.end()
    assert process.returncode == 4
    assert process.errors.endswith("99999\n")
    assert len(process.errors) < 100_000


def test_a_line_without_an_end(tmp_path: Path) -> None:
    process = listen(tmp_path, "while True: print('x' * 65536, end='')")
    with pytest.raises(LineTooLongError):
        list(process.lines())
    process.end()
    assert process.returncode is not None


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        "while True: print('a line', flush=True)",
        "import os, time; os.close(1); os.close(2); time.sleep(600)",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    ],
    ids=["sleeps", "talks", "closes", "ignores"],
)
def test_what_does_not_end(tmp_path: Path, code: str) -> None:
    process = listen(tmp_path, code, 1.0)
    with pytest.raises(TimeoutError):
        for _ in process.lines():
            pass
    process.end()
    assert process.returncode is not None


def test_what_it_started_neither_holds_it_up_nor_outlives_it(tmp_path: Path) -> None:
    process = listen(
        tmp_path,
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid)",
    )
    (line,) = process.lines()
    process.end()
    for _ in range(600):
        try:
            state = Path(f"/proc/{int(line)}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            break
        if state in "ZX":
            break
        time.sleep(0.1)
    else:
        pytest.fail("what the process started runs on")
