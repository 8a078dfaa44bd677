"""Whoever reads what a command prints, or does not: its exit code stays its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REDIRECTIONS = (
    *(">&-", "2>&-", "<&-", ">&- 2>&- <&-"),
    *(">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "1</dev/null"),
    *("| head -c 1 >/dev/null", "2>&1 | head -c 1 >/dev/null", "2>&1 | true"),
)
# What each command says and ends with where there is no registry, repository or server.
COMMANDS = {
    "--help": 0,
    "export --help": 0,
    "export net --alias dev": 6,
    "export net --alias none": 4,
    "rollback net --json": 6,
    "status net": 6,
    "pull net --alias prod": 6,
    "verify net --alias prod --json": 6,
    "prune net": 6,
    "serve": 4,
    "infer net --input none.npz": 2,
    "doctor": 0,
    "--none": 2,
}


def ran(command: str, redirection: str, folder: Path) -> tuple[int, str]:
    """The exit code of a command in a shell, and what came to stderr."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "STLAB_", "LOG_"))}
    line = f"{shlex.quote(sys.executable)} -m exporter.cli {command} {redirection}"
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail\n{line}"],
        cwd=folder,
        env={**kept, "STLAB_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def test_every_command_without_its_streams(tmp_path: Path) -> None:
    for command, code in COMMANDS.items():
        assert ran(command, ">/dev/full 2>&- <&-", tmp_path)[0] == code, command


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_every_redirection(tmp_path: Path, redirection: str) -> None:
    for command in ("--help", "status net --json"):
        code, stderr = ran(command, redirection, tmp_path)
        assert code == COMMANDS[command.removesuffix(" --json")], (command, stderr)
        assert "Traceback" not in stderr
        assert "Exception ignored" not in stderr


CONSOLE = """
import os, sys
from exporter.system.standard_streams import secure_standard_streams
secure_standard_streams()
for count in range(2000):
    print("a line that somebody may read", flush=True)
print("\\udcff \\N{CHECK MARK}")
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
assert file > 2, file
sys.stderr.write("done\\n")
sys.exit(5)
"""


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_what_is_printed_never_ends_up_in_a_file(tmp_path: Path, redirection: str) -> None:
    script = tmp_path / "console.py"
    script.write_text(CONSOLE)
    command = shlex.join([sys.executable, str(script), str(tmp_path / "file")])
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail\nPYTHONIOENCODING=ascii {command} {redirection}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_a_terminal_that_does_not_block_gets_all(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import os\n"
        "from exporter.system.standard_streams import secure_standard_streams\n"
        "os.set_blocking(1, False)\n"
        "secure_standard_streams()\n"
        "print('x' * 1_000_000)\n"
    )
    command = shlex.join([sys.executable, str(script)])
    done = subprocess.run(
        ["/bin/bash", "-c", f"{command} | (sleep 0.2; cat)"], capture_output=True, check=True
    )
    assert len(done.stdout) == 1_000_001
