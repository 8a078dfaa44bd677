"""The servers of the benchmarks: how each is started, asked and understood."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.results import ROOT
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "BIN",
    "Endpoint",
    "ServerError",
    "constant_backend",
    "fastapi",
    "free_ports",
    "mlflow_serve",
    "running",
    "triton",
]

BIN = Path(sys.executable).parent
_READY_SECONDS = 120.0
_STOP_SECONDS = 20.0


class ServerError(Exception):
    """A server did not start, or did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server with the request that it is asked.

    Attributes:
        name: For the table.
        command: What starts it.
        url: Where it is asked.
        ready_url: Answers 200 once it is ready.
        body: The body of every request.
        read: Turns the body of an answer into its array.
        headers: Of every request.
        environment: Added to ours.
        behind: Processes of others that work for it.
    """

    name: str
    command: Sequence[str]
    url: str
    ready_url: str
    body: bytes
    read: Callable[[bytes], np.ndarray]
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    environment: Mapping[str, str] = field(default_factory=dict)
    behind: Sequence[int] = ()

    def ask(self) -> np.ndarray:
        """Return the answer to the request.

        Raises:
            ServerError: The server refuses it.
        """
        request = urllib.request.Request(self.url, self.body, dict(self.headers))
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return self.read(response.read())
        except urllib.error.HTTPError as error:
            raise ServerError(f"{self.name} answers {error.code}: {error.read()!r}") from error


def triton(
    repository: Path, model: str, history: np.ndarray, *, backends: Path | None = None
) -> Endpoint:
    """``stlab serve`` on a repository, asked with the binary tensor extension of the v2 protocol.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

    Args:
        repository: What is served.
        model: What is asked.
        history: The one input.
        backends: The folder of :func:`constant_backend`, to ask that one instead of ours.
    """
    http_port, grpc_port, metrics_port = free_ports(3)
    raw = history.tobytes()
    tensor = {"name": "history", "datatype": "FP32", "shape": history.shape}
    header = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "outputs": [{"name": "forecast", "parameters": {"binary_data": True}}],
        }
    ).encode()

    def read(content: bytes) -> np.ndarray:
        answer, size = json.JSONDecoder().raw_decode(content.decode("latin-1"))
        (output,) = answer["outputs"]
        return np.frombuffer(content[size:], np.float32).reshape(output["shape"])

    ports = ["--http-port", http_port, "--grpc-port", grpc_port, "--metrics-port", metrics_port]
    flags = [] if backends is None else ["--", f"--backend-directory={backends}"]
    return Endpoint(
        "Triton (stlab serve), binary" if backends is None else "the same, computing nothing",
        [str(BIN / "stlab"), "serve", "--repository", str(repository), *ports, *flags],
        f"http://127.0.0.1:{http_port}/v2/models/{model}/infer",
        f"http://127.0.0.1:{http_port}/v2/health/ready",
        header + raw,
        read,
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(header)),
        },
    )


def constant_backend(answer: np.ndarray, backends: Path) -> Path:
    """Make a backend directory in which the onnxruntime backend gives one answer to everything.

    What is left is what the server, its python backend and the connections cost by themselves.
    """
    ours = ensure_runtime(release(DEFAULT_RELEASE)).backend_directory
    if ours is None:
        raise ServerError("the tritonserver on PATH has its own backends: take it off PATH")
    shutil.copytree(ours, backends, ignore=shutil.ignore_patterns("onnxruntime"))
    shutil.copytree(Path(__file__).with_name("constant_backend"), backends / "onnxruntime")
    np.save(backends / "onnxruntime" / "answer.npy", answer)
    return backends


def fastapi(model: Path, history: np.ndarray) -> Endpoint:
    """The app in `fastapi_app.py`, in one uvicorn worker."""
    (port,) = free_ports(1)
    serve = [sys.executable, "-m", "uvicorn", "benchmarks.fastapi_app:app", "--no-access-log"]
    return Endpoint(
        "FastAPI + onnxruntime, JSON",
        [*serve, "--port", port, "--log-level", "warning"],
        f"http://127.0.0.1:{port}/predict",
        f"http://127.0.0.1:{port}/docs",
        json.dumps({"history": history.tolist()}).encode(),
        lambda content: np.asarray(json.loads(content)["forecast"], np.float32),
        environment={"MODEL": str(model), "PYTHONPATH": str(ROOT)},
    )


def mlflow_serve(model_uri: str, history: np.ndarray) -> Endpoint:
    """``mlflow models serve`` with its own defaults, in this environment."""
    (port,) = free_ports(1)
    serve = [str(BIN / "mlflow"), "models", "serve", "-m", model_uri, "--env-manager", "local"]
    return Endpoint(
        "mlflow models serve, JSON",
        [*serve, "--host", "127.0.0.1", "--port", port],
        f"http://127.0.0.1:{port}/invocations",
        f"http://127.0.0.1:{port}/ping",
        json.dumps({"inputs": {"history": history.tolist()}}).encode(),
        lambda content: np.asarray(json.loads(content)["predictions"]["forecast"], np.float32),
        # `mlflow models serve` looks for uvicorn on PATH.
        environment={"PATH": f"{BIN}:{os.environ['PATH']}"},
    )


@contextmanager
def running(endpoint: Endpoint, folder: Path) -> Iterator[int]:
    """Run a server for as long as the block runs.

    Args:
        endpoint: What to start.
        folder: Where it runs, and where its log goes.

    Yields:
        Its process.

    Raises:
        ServerError: It ended, or was not ready in time; the end of its log is in the message.
    """
    log = folder / f"{'-'.join(re.findall(r'[a-z]+', endpoint.name.lower()))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            endpoint.command,
            cwd=folder,
            env={**os.environ, **endpoint.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _is_ready(endpoint.ready_url):
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text(errors="replace")[-2000:]
                raise ServerError(f"{endpoint.name} is not ready:\n{words}")
            time.sleep(0.1)
        yield process.pid
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Its group is its own: MLflow starts uvicorn through a shell, which hands no signal on.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + _STOP_SECONDS
        while _group_lives(process) and time.monotonic() < deadline:
            time.sleep(0.05)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def free_ports(count: int) -> list[str]:
    """Return ports that nothing listens on; all are held until the last one is known."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [str(entry.getsockname()[1]) for entry in sockets]
