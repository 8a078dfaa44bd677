"""Starts the dashboard as its users do: in a process with an environment of its own."""

from __future__ import annotations

import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.forked import Forked
from tests.support.ports import free_port
from tests.support.running import environment

__all__ = ["Dashboard", "dashboard"]

START_SECONDS = 60.0


@dataclass(frozen=True)
class Dashboard:
    """A running dashboard."""

    url: str
    log: Path


@contextmanager
def dashboard(
    folder: Path, *, plugins: str = "", errors: int = 0, **settings: str
) -> Iterator[Dashboard]:
    """Run the command until the block ends; it answers when the block begins.

    Args:
        folder: Where it runs.
        plugins: A folder with an installed distribution.
        errors: The tracebacks that its log has at the end.
        settings: Its environment.
    """
    port = free_port()
    log = folder / f"dashboard-{port}.log"
    given = {"STLAB_DASHBOARD_PORT": str(port), "STLAB_DASHBOARD_REFRESH_SECONDS": "0.5",
             "STLAB_DASHBOARD_CACHE_SECONDS": "1", **settings}  # fmt: skip
    log.touch()
    path = f"import sys; sys.path.insert(0, {plugins!r}); " if plugins else ""
    main = f"{path}from stlab_dashboard.__main__ import main; raise SystemExit(main())"
    process = Forked([], cwd=folder, env=environment(**given), code=main, log=log)
    running = Dashboard(f"http://127.0.0.1:{port}", log)
    try:
        end = time.monotonic() + START_SECONDS
        while not _live(running.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield running
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
        assert log.read_text().count("Traceback") == errors, log.read_text()
    finally:
        process.kill()
        process.wait()


def _live(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
