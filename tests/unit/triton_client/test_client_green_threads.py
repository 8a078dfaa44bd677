"""The client in programs whose threads gevent or eventlet has replaced."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
INIT
import gevent, numpy as np
from triton_client import TritonClient
x = np.arange(4, dtype=np.float32).reshape(2, 2)
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1
gevent.spawn(tick)
with TritonClient(sys.argv[1], timeout=20) as client:
    model = client.model("m")
    ticks = 0
    calls = [gevent.spawn(model.infer, {"x": x}) for _ in range(20)]
    gevent.joinall(calls, raise_error=True)
    assert all((call.value["y"] == x).all() for call in calls)
    assert ticks > 0, "the other greenlets stood still"
    assert len(list(model.infer_many([{"x": x}] * 8))) == 8
    assert len(list(model.stream({"x": x}))) == 2
print("done")
"""
EVENTLET = """
import sys
import eventlet
eventlet.monkey_patch(thread=False)
import numpy as np
from triton_client import TritonClient
x = np.arange(4, dtype=np.float32).reshape(2, 2)
with TritonClient(sys.argv[1], timeout=20) as client:
    model = client.model("m")
    pool = eventlet.GreenPool(8)
    assert len(list(pool.imap(model.infer, [{"x": x}] * 20))) == 20
    assert len(list(model.stream({"x": x}))) == 2
print("done")
"""
REFUSED = """
import sys
PATCH
import numpy
from triton_client import AsyncTritonClient, TritonClient
try:
    CLIENT(sys.argv[1])
except RuntimeError as error:
    print(error)
"""


def ran(code: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "init", ["", "import grpc.experimental.gevent as bridge; bridge.init_gevent()"]
)
def test_gevent(server: Any, init: str) -> None:
    echo = server.infer

    def slowly(request: Any, context: Any) -> Any:
        time.sleep(0.02)
        return echo(request, context)

    server.infer = slowly
    assert ran(GEVENT.replace("INIT", init), server.url) == "done\n"


@pytest.mark.parametrize(
    ("patch", "client", "words"),
    [
        (
            "import eventlet; eventlet.monkey_patch()",
            "TritonClient",
            "eventlet.monkey_patch(thread=False)",
        ),
        ("from gevent import monkey; monkey.patch_all()", "AsyncTritonClient", "use TritonClient"),
    ],
)
def test_what_would_hang_says_what_to_do(patch: str, client: str, words: str, server: Any) -> None:
    code = REFUSED.replace("PATCH", patch).replace("CLIENT", client)
    assert words in ran(code, server.url)


def test_eventlet_without_its_threads(server: Any) -> None:
    assert ran(EVENTLET, server.url) == "done\n"
