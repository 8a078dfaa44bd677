"""The servers of the benchmark of the HTTP service: ours twice, and three others, one worker each.

All are asked with JSON of the same numbers, each in the envelope that it wants. None writes a line
of log for a request.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.results import ROOT
from benchmarks.servers import BIN, Endpoint, free_ports, mlflow_serve
from examples.us_income.stlab_commands import start_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.served import Served

__all__ = ["OURS", "RIVALS", "endpoints"]

OURS = 2
"""How many of the endpoints are ours; they come first."""

RIVALS = ROOT / "benchmarks" / ".rivals" / "bin"
"""Where the others are installed, in an environment of their own."""

_SERVICES = Path(__file__).with_name("rivals")
_READY_SECONDS = 120.0


@contextmanager
def endpoints(served: Served, folder: Path) -> Iterator[tuple[Endpoint, ...]]:
    """Run the Triton that one of them needs for as long as the block runs.

    Yields:
        The servers, ours first.

    Raises:
        DemoError: Triton did not start.
    """
    # MLflow starts uvicorn, which takes its options from the environment as well.
    silent = {"UVICORN_ACCESS_LOG": "false"}
    mlflow = mlflow_serve(served.onnx_uri, served.history)
    with start_server(
        str(served.repository), log=folder / "tritonserver.log", environment=dict(os.environ)
    ) as triton:
        triton.wait_until_ready(_READY_SECONDS)
        ours_by_triton = _service(served, "triton", {"STLAB_TRITON_URL": triton.url})
        yield (
            _service(served, "local", {}),
            replace(ours_by_triton, behind=(triton.process.pid,)),
            replace(
                mlflow,
                name="mlflow models serve",
                environment={**mlflow.environment, **silent},
            ),
            _bentoml(served, folder),
            _litserve(served),
        )


def _service(served: Served, backend: str, environment: dict[str, str]) -> Endpoint:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    return Endpoint(
        f"stlab-api, {backend}",
        [str(BIN / "stlab-api")],
        f"{url}/v1/models/{served.name}/predict",
        f"{url}/health/ready",
        _body({"inputs": {"history": served.history.tolist()}}),
        lambda content: _array(json.loads(content)["outputs"]["forecast"]),
        environment={
            "MLFLOW_MODEL_NAME": served.name,
            "MLFLOW_MODEL_ALIAS": "staging",
            "STLAB_API_BACKEND": backend,
            "STLAB_API_PORT": port,
            "LOG_LEVEL": "WARNING",
            **environment,
        },
    )


def _bentoml(served: Served, folder: Path) -> Endpoint:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    serve = [str(RIVALS / "bentoml"), "serve", "bentoml_service:Forecaster"]
    return Endpoint(
        "BentoML",
        [*serve, "--working-dir", str(_SERVICES), "--host", "127.0.0.1", "--port", port],
        f"{url}/predict",
        f"{url}/readyz",
        _body({"history": served.history.tolist()}),
        lambda content: _array(json.loads(content)),
        environment={
            "MODEL": str(served.path),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "bentoml"),
        },
    )


def _litserve(served: Served) -> Endpoint:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    return Endpoint(
        "LitServe",
        [str(RIVALS / "python"), str(_SERVICES / "litserve_app.py"), port],
        f"{url}/predict",
        f"{url}/health",
        _body({"history": served.history.tolist()}),
        lambda content: _array(json.loads(content)["forecast"]),
        environment={"MODEL": str(served.path)},
    )


def _body(content: object) -> bytes:
    return json.dumps(content).encode()


def _array(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)
