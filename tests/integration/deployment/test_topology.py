"""The whole way through what Compose starts: register, export, promote, ask, roll back."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from examples.us_income.forecasting import ForecastRequest
from exporter.errors import ConflictError
from exporter.triton.connection import connect
from tests.support.embedded import loopback_flags
from tests.support.ports import free_port
from tests.support.running import environment as bare
from tests.unit.deployment.chart_files import ci_case, pods, rendered
from tests.unit.deployment.deploy_files import ROOT

from .containers import possible
from .parts import answers, running
from .stack import SECRET, Stack, wait_for

pytestmark = [pytest.mark.triton, pytest.mark.timeout(900)]
EXAMPLE = ForecastRequest.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack.open(folder, MLFLOW_MODEL_NAME="income", MLFLOW_MODEL_ALIAS="prod") as stack:
        made = stack.run("buckets")
        assert made.returncode == 0, made.stderr
        stack.start("mlflow")
        http, grpc, metrics = (stack.ports["triton", port] for port in (8000, 8001, 8002))
        stack.start("triton-cpu", *loopback_flags(http=http, grpc=grpc, metrics=metrics))
        stack.start("api")
        stack.start("dashboard")
        stack.prometheus_files()
        stack.start(
            "prometheus", f"--web.listen-address=127.0.0.1:{stack.ports['prometheus', 9090]}"
        )
        yield stack


def exporter(stack: Stack, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command in the exporter's container as a pipeline does, and return what it printed."""
    done = stack.run("exporter", *arguments, "--json", CI="true")
    assert done.returncode == code, done.stdout + done.stderr[-2000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def forecast(stack: Stack) -> dict[str, Any]:
    """Ask the business endpoint."""
    request = urllib.request.Request(
        f"{stack.url('api', 8080)}/v1/income/forecast",
        json.dumps(EXAMPLE).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answered: dict[str, Any] = json.load(answer)
    return answered


def forecast_by(stack: Stack, version: int) -> dict[str, Any]:
    """Ask until a version answers."""

    def asked() -> dict[str, Any] | None:
        answer = forecast(stack)
        return answer if answer["model"]["version"] == version else None

    found: dict[str, Any] = wait_for(asked)
    return found


def measured(stack: Stack, query: str) -> dict[str, float]:
    """What Prometheus has, by job."""
    given = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{stack.url('prometheus', 9090)}/api/v1/query?{given}") as answer:
        found = json.load(answer)["data"]["result"]
    return {entry["metric"].get("job", ""): float(entry["value"][1]) for entry in found}


def train(stack: Stack) -> None:
    """Train the demo's model from the host, as the documentation has it, and register it twice."""
    registry = stack.url("mlflow", 5000)
    subprocess.run(
        [sys.executable, "-m", "examples.us_income.train"],
        env={**bare(), "MLFLOW_TRACKING_URI": registry},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    client = MlflowClient(registry)
    first = client.get_model_version("income", "1")
    client.create_model_version(
        "income", first.source, first.run_id, model_id=first.source.removeprefix("models:/")
    )


def test_from_the_registry_to_a_forecast_and_back(stack: Stack) -> None:
    ready = answers(f"{stack.url('api', 8080)}/health/ready")
    assert not ready()
    train(stack)
    for version in (1, 2):
        staged = exporter(
            stack, "export", "income", "--alias", "staging", "--version", str(version)
        )
        assert (staged["status"], staged["version"]) == ("promoted", version)
        sold = exporter(stack, "export", "income", "--alias", "prod")
        assert (sold["status"], sold["version"]) == ("promoted", version)
        assert sold["bundle"]["reused"] is True
        wait_for(ready)
        answer = forecast_by(stack, version)
        assert [entry["state"] for entry in answer["forecasts"]] == ["California", "New York"]
        assert set(answer["forecasts"][0]["forecast"]) == {"2000", "2001", "2002"}
    exporter(stack, "status", "income", "--check")
    back = exporter(stack, "rollback", "income", "--alias", "prod")
    assert back["version"] == 1
    forecast_by(stack, 1)
    wait_for(lambda: measured(stack, "stlab_api_ready") == {"stlab-api": 1.0})
    assert measured(stack, "up") == {"stlab-api": 1.0, "triton": 1.0, "prometheus": 1.0}
    route = 'route="/v1/income/forecast",status="200"'
    assert measured(stack, f"sum by (job) (stlab_api_requests_total{{{route}}})")["stlab-api"] >= 3
    assert measured(stack, "sum by (job) (nv_inference_request_success)")["triton"] >= 3
    assert measured(stack, "ALERTS") == {}
    wait_for(answers(f"{stack.url('dashboard', 8090)}/"))


def test_nobody_loads_a_model_without_the_key(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"127.0.0.1:{stack.ports['triton', 8001]}"
    monkeypatch.delenv("STLAB_TRITON_KEY", raising=False)
    with pytest.raises(ConflictError, match="requires credentials"), connect(url) as client:
        client.repository.unload("income")
    monkeypatch.setenv("STLAB_TRITON_KEY", SECRET)
    with connect(url) as client:
        assert {entry.name for entry in client.repository.index()} == {"income"}


def test_no_secret_is_written_down(stack: Stack) -> None:
    logs = sorted(stack.folder.glob("*.log"))
    assert len(logs) >= 6
    for log in logs:
        assert SECRET not in log.read_text(errors="replace"), log.name


def test_processes_have_what_containers_have(stack: Stack) -> None:
    """The root cannot be written, /tmp can, and nobody is root."""
    if not possible():
        pytest.skip(
            "they ran as this user on an ordinary root: only root, and not in every container, may "
            "make a mount namespace"
        )
    for name in ("api", "exporter"):
        tried = stack.execute(
            stack.service(name, ["sh", "-c", "id -u; touch /tmp/a && echo yes; touch /a /usr/a"])
        )
        assert tried.stdout.split() == ["1000", "yes"]
        assert tried.stderr.count("Read-only file system") == 2
    assert not Path("/a").exists()


def test_a_pod_pulls_its_bundle(stack: Stack) -> None:
    """What the chart's init container runs brings what prod took; its Triton serves it."""
    (pod,) = [pod for pod in pods(rendered(ci_case("bundle"))) if pod.part == "triton"]
    (pull,) = pod.spec["initContainers"]
    # Of the models of the example, this registry has one.
    pull = {**pull, "args": ["income"]}
    triton = pod.main

    def inside(container: dict[str, Any], *flags: str, volumes: tuple[Path, ...] = ()) -> list[str]:
        told = {one["name"]: one.get("value", SECRET) for one in container["env"]}
        command = [*container["command"], *container["args"], *flags]
        return stack.inside(command, told, *volumes)

    pulled = stack.execute(inside(pull, volumes=(stack.volume("/repository"),)))
    assert pulled.returncode == 0, pulled.stderr
    ports = {name: free_port() for name in ("http", "grpc", "metrics")}
    ready = answers(f"http://127.0.0.1:{ports['http']}/v2/health/ready")
    with running(inside(triton, *loopback_flags(**ports)), ready, stack.folder / "pod.log"):
        url = f"127.0.0.1:{ports['grpc']}"
        verdict = exporter(stack, "verify", "income", "--alias", "prod", "--triton-url", url)
        assert (verdict["status"], verdict["version"]) == ("passed", 1)
