"""The whole way that Compose lays out, as processes: register, export, promote, ask, roll back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from examples.us_income.forecasting import ForecastRequest
from tests.integration.exporter.running import environment as bare
from tests.unit.exporter.stores import serving

from .parts import SCRIPTS, address, answers, mlflow_server, postgres, prometheus, running

pytestmark = [pytest.mark.triton, pytest.mark.timeout(600)]
EXAMPLE = ForecastRequest.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]


@dataclass
class Topology:
    """What runs, and the environment of the commands that work on it."""

    environment: Mapping[str, str]
    folder: Path
    api: str
    triton: str
    prometheus: str

    def command(self, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command as a pipeline does, and return what it printed."""
        done = subprocess.run(
            [str(SCRIPTS / name), *arguments, "--json"],
            env={**os.environ, **self.environment, "CI": "true"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr[-2000:]
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    def forecast(self) -> dict[str, Any]:
        """Ask the business endpoint."""
        request = urllib.request.Request(
            f"{self.api}/v1/income/forecast",
            json.dumps(EXAMPLE).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            answered: dict[str, Any] = json.load(answer)
        return answered

    def wait_until_ready(self) -> None:
        """Return once the service has found its model."""
        end = time.monotonic() + 60
        while not answers(f"{self.api}/health/ready")():
            assert time.monotonic() < end, (self.folder / "api.log").read_text()[-2000:]
            time.sleep(0.2)

    def wait_for(self, version: int) -> dict[str, Any]:
        """Ask until a version answers."""
        end = time.monotonic() + 30
        while (answer := self.forecast())["model"]["version"] != version:
            assert time.monotonic() < end, answer["model"]
            time.sleep(0.2)
        return answer

    def measured(self, query: str) -> dict[str, float]:
        """What Prometheus has, by job."""
        given = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/query?{given}") as answer:
            found = json.load(answer)["data"]["result"]
        return {entry["metric"].get("job", ""): float(entry["value"][1]) for entry in found}


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    folder = tmp_path_factory.mktemp("topology")
    with ExitStack() as stack:
        store = stack.enter_context(serving())
        store.reset()
        # Triton starts on no empty place.
        store.put("models/README.md", b"A model repository.")
        secrets = store.settings
        # What MLflow's own server needs of S3, its clients do not: it hands artifacts on.
        of_mlflow = {**secrets, "MLFLOW_S3_ENDPOINT_URL": store.endpoint}
        database = stack.enter_context(postgres(folder / "postgres.log"))
        registry = stack.enter_context(
            mlflow_server(database, "s3://bucket/mlflow", folder / "mlflow.log", of_mlflow)
        )
        environment = {
            **bare(),
            **secrets,
            "MLFLOW_TRACKING_URI": registry,
            "STLAB_MODEL_REPOSITORY": store.url("models"),
        }
        _train(environment, folder)
        http, grpc, metrics = (address()[1] for _ in range(3))
        ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
        serve = [str(SCRIPTS / "stlab"), "serve", *ports]
        stack.enter_context(
            running(
                serve,
                answers(f"http://127.0.0.1:{http}/v2/health/ready"),
                folder / "triton.log",
                environment=environment,
            )
        )
        api_port = address()[1]
        environment |= {
            "STLAB_TRITON_URL": f"127.0.0.1:{grpc}",
            "STLAB_API_BACKEND": "triton",
            "STLAB_API_PORT": str(api_port),
            "STLAB_API_REFRESH_SECONDS": "0.5",
            "MLFLOW_MODEL_NAME": "income",
            "MLFLOW_MODEL_ALIAS": "prod",
        }
        api = f"http://127.0.0.1:{api_port}"
        # It waits for its model by itself, and is not ready until then.
        stack.enter_context(
            running(
                [str(SCRIPTS / "stlab-api")],
                answers(f"{api}/health/live"),
                folder / "api.log",
                environment=environment,
            )
        )
        scraped = {"api": f"127.0.0.1:{api_port}", "triton": f"127.0.0.1:{metrics}"}
        yield Topology(
            environment,
            folder,
            api,
            f"127.0.0.1:{grpc}",
            stack.enter_context(prometheus(scraped, folder)),
        )


def _train(environment: Mapping[str, str], folder: Path) -> None:
    """Train the demo's model, and register it twice."""
    train = "from examples.us_income.train import train_and_register as t; import os; "
    train += "t(os.environ['MLFLOW_TRACKING_URI'])"
    subprocess.run(
        [sys.executable, "-c", train],
        env={**os.environ, **environment},
        cwd=folder,
        check=True,
        capture_output=True,
    )
    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    first = client.get_model_version("income", "1")
    client.create_model_version(
        "income", first.source, first.run_id, model_id=first.source.removeprefix("models:/")
    )


def test_from_the_registry_to_a_forecast_and_back(topology: Topology) -> None:
    assert not answers(f"{topology.api}/health/ready")()
    for version in (1, 2):
        number = str(version)
        staged = topology.command(
            "stlab-export", "income", "--alias", "staging", "--version", number
        )
        assert (staged["status"], staged["version"]) == ("promoted", version)
        sold = topology.command("stlab-export", "income", "--alias", "prod")
        assert (sold["status"], sold["version"]) == ("promoted", version)
        assert sold["bundle"]["reused"] is True
        topology.wait_until_ready()
        answer = topology.wait_for(version)
        assert [entry["state"] for entry in answer["forecasts"]] == ["California", "New York"]
        assert set(answer["forecasts"][0]["forecast"]) == {"2000", "2001", "2002"}
        assert answers(f"{topology.api}/health/ready")()
    topology.command("stlab", "status", "income", "--check")
    back = topology.command("stlab", "rollback", "income", "--alias", "prod")
    assert back["version"] == 1
    topology.wait_for(1)
    verdict = topology.command("stlab", "verify", "income", "--alias", "prod")
    assert verdict["status"] == "passed", verdict
    time.sleep(2.5)  # two scrapes
    assert topology.measured("up") == {"api": 1.0, "triton": 1.0}
    route = 'route="/v1/income/forecast",status="200"'
    assert topology.measured(f"sum by (job) (stlab_api_requests_total{{{route}}})")["api"] >= 3
    assert topology.measured("sum by (job) (nv_inference_request_success)")["triton"] >= 3
