"""A benchmark that is stopped, in whatever way, leaves none of its processes behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[3]

# Stands for a server such as BentoML: with a worker in a session of its own, one without the
# environment, and one whose parent has ended.
SERVER = """
import subprocess, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
sleep = [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[2]]
subprocess.Popen(sleep, start_new_session=True)
subprocess.Popen(sleep, env={})
subprocess.run(["/bin/sh", "-c", '"$0" "$@" & exit 0', *sleep])
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""
BENCHMARK = """
import sys, tempfile, time
from pathlib import Path
from benchmarks.guard import guarded
from benchmarks.processes import measure
from benchmarks.served import use_registry
from benchmarks.servers import Endpoint, free_ports, running
server, way, mark = sys.argv[1:]
(port,) = free_ports(1)
url = f"http://127.0.0.1:{port}/"
command = [sys.executable, "-c", server, port, mark]
with tempfile.TemporaryDirectory() as scratch, guarded():
    use_registry(Path(scratch))
    if way == "measure":
        print("ready", flush=True)
        measure(command, folder=Path(scratch), environment={}, timeout=600)
    with running(Endpoint("stand-in", command, url, url, b"", bytes), Path(scratch)):
        print("ready", flush=True)
        if way == "stays":
            time.sleep(600)
"""


def carrying(mark: str) -> set[int]:
    """The living processes with a word in their command line."""
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and int(path.name) != os.getpid():
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in words:
                found.add(int(path.name))
    return found


def wait_for(mark: str, count: int) -> set[int]:
    deadline = time.monotonic() + 60
    while len(found := carrying(mark)) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid4().hex
    yield mark
    for pid in carrying(mark):
        os.kill(pid, signal.SIGKILL)


def begin(way: str, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BENCHMARK, SERVER, way, mark],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("way", ["stays", "measure"])
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name
)
def test_a_benchmark_that_is_stopped_ends_its_servers(
    way: str, number: signal.Signals, mark: str
) -> None:
    with begin(way, mark) as benchmark:
        assert benchmark.stdout is not None
        assert benchmark.stdout.readline() == "ready\n", benchmark.communicate()
        assert len(wait_for(mark, 5)) == 5, "the benchmark, the server and its three workers"
        benchmark.send_signal(number)
        assert benchmark.wait(60) != 0
    assert wait_for(mark, 0) == set()


def test_a_benchmark_that_ends_leaves_nothing(mark: str) -> None:
    with begin("ends", mark) as benchmark:
        assert benchmark.wait(60) == 0, benchmark.communicate()
    assert wait_for(mark, 0) == set()
