"""The real service in a process of its own, with fake models: run as a module, it serves.

The server, its sockets and the application are those of the command; only what a model computes
is not.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stlab_api.app import create_app
from stlab_api.settings import Settings
from tests.support.ports import free_port
from tests.support.services import Service
from tests.unit.api.fakes import FakeBackend, FakePredictor, model_spec
from triton_client.types import TensorSpec

__all__ = ["fake_service"]

ROOT = Path(__file__).parents[2]
MODELS = "toy,numbers,texts,large"
FP32 = TensorSpec("x", "FP32", (-1, -1))
SPECS = {
    "toy": model_spec("toy"),
    "numbers": model_spec("numbers", inputs=(FP32,), max_batch_size=0),
    "texts": model_spec(
        "texts", inputs=(TensorSpec("x", "BYTES", (-1, -1)),), max_batch_size=0
    ),
    "large": model_spec("large"),
}  # fmt: skip


def answer(predictor: FakePredictor) -> None:
    def computed(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if predictor.spec.name == "large":  # 16 MiB of JSON, whatever is given
            return {"y": np.ones((1024, 4096), np.float32)}
        if predictor.spec.name == "toy":
            return {"y": inputs["x"] * np.float32(2)}
        return {"y": np.array([[inputs["x"].size]], np.float32)}

    predictor.answer = computed


def main() -> int:
    from stlab_api.server import serve

    settings = Settings(_env_file=None)
    backend = FakeBackend(
        specs=SPECS, alias=dict.fromkeys(SPECS, 1), make=answer
    )  # fmt: skip
    app = create_app(settings, backend)
    app.state.service._look_up = backend.look
    return serve(settings, app)


@contextmanager
def fake_service(**settings: object) -> Iterator[Service]:
    """Run it until the block ends; it is ready when the block begins."""
    port = free_port()
    given = {
        "MLFLOW_MODEL_NAME": MODELS,
        "STLAB_API_PORT": port,
        "STLAB_API_DRAIN_SECONDS": 0,
        "STLAB_API_STOP_SECONDS": 2,
        **settings,
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    environment = {**kept, **{name: str(value) for name, value in given.items()}}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "api.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=file,
            )
        running = Service(port, process, log)
        try:
            _wait(running)
            yield running
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(running: Service) -> None:
    end = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
        try:
            connection.request("GET", "/health/live")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        assert running.process.poll() is None, running.log.read_text()
        assert time.monotonic() < end, running.log.read_text()
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
