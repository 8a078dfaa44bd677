"""Keys on a command line that no list of processes shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from exporter.triton import hidden_flags
from exporter.triton.hidden_flags import hide

KEY = "open-sesame-1234"
FLAG = f"--grpc-restricted-protocol=model-repository,trace:stlab={KEY}"
SHOW = """
import json, os, sys, time
time.sleep(0.3)
print(json.dumps([sys.argv[1:], {**os.environ}]))
"""


def start(*command: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    shown, hidden = hide([*command])
    environment = {"PATH": os.defpath, "KEPT": "yes", **hidden}
    helper = [sys.executable, "-I", "-S", hidden_flags.__file__, *shown]
    process = subprocess.Popen(
        helper, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return process, environment


def test_the_program_alone_has_the_key() -> None:
    python = str(Path(sys.executable).resolve())
    process, _ = start(python, "-c", SHOW, "--first", FLAG, "--http-restricted-api=trace:a=b=c")
    seen = set()
    with process:
        # From before the program is loaded until it has ended: there is no instant to look at.
        while process.poll() is None:
            seen.add(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        output, errors = process.communicate()
    arguments, environment = json.loads(output)
    assert arguments == ["--first", FLAG, "--http-restricted-api=trace:a=b=c"]
    assert environment["KEPT"] == "yes"
    # What it starts inherits no key.
    assert KEY not in str(environment)
    assert not errors
    assert any(b"--first" in line and hidden_flags.HIDDEN.encode() not in line for line in seen)
    assert not [line for line in seen if KEY.encode() in line]


def test_where_it_cannot_be_hidden_that_is_said(tmp_path: Path) -> None:
    # A script hands its arguments on to another program.
    script = tmp_path / "tritonserver"
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    with start(str(script), FLAG)[0] as process:
        output, errors = process.communicate()
    assert output.decode().strip() == FLAG
    assert b"other users of this machine can read the key" in errors
    assert b"is a script" in errors


def test_a_program_that_is_not_there() -> None:
    with start("/nowhere/tritonserver", FLAG)[0] as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert b"/nowhere/tritonserver cannot be started" in errors
