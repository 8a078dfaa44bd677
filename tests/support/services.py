"""Starts the service as its users do: the command, in a process with an environment of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked import Forked
from tests.support.ports import free_port
from tests.support.registering import RegistryFixture
from tests.support.running import environment

__all__ = ["Service", "service"]


@dataclass
class Service:
    """A running service."""

    port: int
    process: Forked | subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Get a path, or post to it; bytes are sent as they are, anything else as JSON."""
        given = {"Content-Type": "application/json", **(headers or {})}
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", raw, given)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def get(self, path: str) -> Any:
        status, body, _ = self.call(path)
        assert status == 200, body
        return json.loads(body)

    def ready(self) -> bool:
        try:
            return self.call("/health/ready")[0] == 200
        except OSError:
            return False

    def wait(self, *, ready: bool = True, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while self.ready() is not ready:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def memory(self) -> int:
        """Bytes that the process has in memory."""
        line = next(
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        return int(line.split()[1]) * 1024


@contextmanager
def service(lab: RegistryFixture, model: str, **settings: object) -> Iterator[Service]:
    """Run the command until the block ends; it is ready when the block begins."""
    port = free_port()
    log = lab.folder / f"api-{port}.log"
    given = {
        "MLFLOW_TRACKING_URI": lab.uri,
        "MLFLOW_MODEL_NAME": model,
        "MLFLOW_MODEL_ALIAS": "staging",
        "STLAB_API_PORT": str(port),
        "STLAB_API_REFRESH_SECONDS": "0.2",
        "STLAB_API_DRAIN_SECONDS": "1",
        **{name: str(value) for name, value in settings.items()},
    }
    main = "from stlab_api.__main__ import main; raise SystemExit(main())"
    process = Forked([], cwd=lab.folder, env=environment(**given), code=main, log=log)
    running = Service(port, process, log)
    try:
        running.wait()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
