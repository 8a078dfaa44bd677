"""The service with both backends: the registry model's numbers, whatever happens around it."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.ports import free_port
from tests.support.registering import RegistryFixture
from tests.support.services import Service, service

from .asking import LOST, NOT_SENT, asking

pytestmark = [pytest.mark.triton, pytest.mark.timeout(300)]
ASKED = {"inputs": {"x": ROWS.tolist()}}


@contextmanager
def triton(lab: RegistryFixture, grpc_port: int = 0) -> Iterator[TritonServer]:
    repository = lab.folder / "repository"
    repository.mkdir(exist_ok=True)
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    # With no models to load, what the repository serves is loaded by those who export.
    models = tuple(path.name for path in repository.iterdir() if path.is_dir())
    with TritonServer.start(runtime, str(repository), models=models, grpc_port=grpc_port) as server:
        server.wait_live()
        yield server


@contextmanager
def either(
    backend: str, lab: RegistryFixture, model: str, server: TritonServer, **more: object
) -> Iterator[Service]:
    with service(
        lab, model, STLAB_API_BACKEND=backend, STLAB_TRITON_URL=server.grpc_url, **more
    ) as running:
        yield running


@pytest.fixture(scope="module")
def server(lab: RegistryFixture) -> Iterator[TritonServer]:
    with triton(lab) as server:
        yield server


def promote(lab: RegistryFixture, server: TritonServer, name: str) -> None:
    urls = (server.grpc_url,)
    result = lab.export(name, triton_urls=urls, prove_on=server.grpc_url)
    assert result.status == "promoted", result.error


class Several(nn.Module):
    """Two inputs of different types, two outputs."""

    def forward(self, tokens: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "scaled": tokens.double().cumsum(1) * scale,
            "even": tokens % 2 == 0,
        }


@pytest.mark.parametrize("backend", ["local", "triton"])
def test_the_registered_models_numbers(
    lab: RegistryFixture, server: TritonServer, backend: str
) -> None:
    name = f"several-{backend}"
    tokens = np.arange(12, dtype=np.int64).reshape(3, 4)
    scale = np.array([[0.5], [1.5], [-2.0]])
    lab.register_torch(name, Several(), tokens, scale)
    promote(lab, server, name)
    expected = Several()(torch.from_numpy(tokens), torch.from_numpy(scale))
    with either(backend, lab, name, server) as running:
        about = running.get(f"/v1/models/{name}")
        assert about["version"] == 1
        assert about["alias"] == "staging"
        names = [tensor["name"] for tensor in about["inputs"]]
        given = dict(zip(names, (tokens, scale), strict=True))
        outputs = sorted(tensor["name"] for tensor in about["outputs"])
        assert outputs == ["even", "scaled"]
        path = f"/v1/models/{name}/predict"
        status, body, _ = running.call(path, {"inputs": {n: a.tolist() for n, a in given.items()}})
        assert status == 200, body
        answer = json.loads(body)
        assert answer["model"] == {"name": name, "version": 1, "alias": "staging"}
        np.testing.assert_array_equal(answer["outputs"]["scaled"], expected["scaled"].numpy())
        assert answer["outputs"]["even"] == expected["even"].tolist()
        # The same as arrays.
        content = io.BytesIO()
        np.savez(content, **given)
        octets = {"Content-Type": "application/octet-stream"}
        status, body, headers = running.call(path, content.getvalue(), headers=octets)
        assert status == 200, body
        assert headers["x-model-version"] == "1"
        with np.load(io.BytesIO(body)) as found:
            np.testing.assert_array_equal(found["scaled"], expected["scaled"].numpy())
            np.testing.assert_array_equal(found["even"], expected["even"].numpy())
        # And what is no request of the model is refused by name.
        status, body, _ = running.call(path, {"inputs": {names[0]: tokens.tolist()}})
        assert status == 422
        assert names[1] in body.decode()
        page = running.call("/metrics")[1].decode()
        assert (
            f'stlab_api_requests_total{{method="POST",model="{name}",'
            'route="/v1/models/{name}/predict",status="200",version="1"} 2.0'
        ) in page


@pytest.mark.parametrize("backend", ["local", "triton"])
def test_an_alias_moves_under_load(
    lab: RegistryFixture, server: TritonServer, backend: str
) -> None:
    name = f"moves-{backend}"
    lab.register_onnx(name, times(1.0), example=ROWS)
    promote(lab, server, name)
    lab.register_onnx(name, times(2.0), example=ROWS)
    path = f"/v1/models/{name}/predict"
    with (
        either(backend, lab, name, server) as running,
        asking(running.port, path, ASKED, clients=8, rate=200) as load,
    ):
        load.wait_for(200)
        promote(lab, server, name)
        load.wait_for(400)
    assert set(load.statuses()) == {200}, load.statuses()
    seen = [(asked.sent, asked.json) for asked in sorted(load.asked, key=lambda a: a.sent)]
    for _, answer in seen:
        found = np.array(answer["outputs"]["y"], np.float32)
        np.testing.assert_allclose(found, ROWS * answer["model"]["version"], rtol=1e-6)
    versions = [answer["model"]["version"] for _, answer in seen]
    switch = versions.index(2)
    late = [place for place, version in enumerate(versions) if version == 1 and place > switch]
    # What was sent before the switch may be answered after it: one per client at most.
    assert len(late) < 8
    assert versions[-1] == 2
    assert load.asked[-1].sent - load.asked[0].sent > 2


def test_it_finishes_what_it_has_begun(lab: RegistryFixture, server: TritonServer) -> None:
    lab.register_onnx("stops", times(3.0), example=ROWS)
    promote(lab, server, "stops")
    path = "/v1/models/stops/predict"
    with service(lab, "stops", STLAB_API_BACKEND="local") as running:
        with asking(running.port, path, ASKED, clients=16) as load:
            load.wait_for(500)
            running.process.send_signal(signal.SIGTERM)
            running.wait(ready=False)
            assert running.process.wait(timeout=20) == 0
        assert LOST not in load.statuses(), load.statuses()
        assert set(load.statuses()) == {200, NOT_SENT}
        assert load.statuses()[200] > 500


class Slow(nn.Module):
    """Takes some milliseconds of one core for every row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x.repeat(1, 86)[:, :512].unsqueeze(1).expand(-1, 64, -1)
        for layer in self.layers:
            hidden = hidden + layer(hidden) / 8
        return hidden.mean((1, 2))


def test_more_than_it_can_carry(lab: RegistryFixture, server: TritonServer) -> None:
    lab.register_torch("heavy", Slow(), ROWS)
    promote(lab, server, "heavy")
    path = "/v1/models/heavy/predict"
    body = {"inputs": {"x": ROWS[:1].tolist()}}
    with service(
        lab, "heavy", STLAB_API_BACKEND="local", STLAB_API_MAX_CONCURRENCY=8, LOG_LEVEL="WARNING"
    ) as running:
        with asking(running.port, path, body, clients=8) as carried:
            carried.wait_for(60)
        assert set(carried.statuses()) == {200}
        before = running.memory()
        # Those who are refused come back a little later, as clients do.
        with asking(running.port, path, body, clients=32, rate=4 * _rate(carried)) as load:
            load.wait_for(120)
        after = running.memory()
        with asking(running.port, path, body, clients=8) as again:
            again.wait_for(60)
    statuses = load.statuses()
    assert set(statuses) == {200, 503}, statuses
    assert statuses[503] > 40
    refused = next(asked for asked in load.asked if asked.status == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json["type"] == "urn:stlab:problem:overloaded"
    # Whatever else the machine did meanwhile, it did before or after as well.
    assert load.median() < 2 * max(carried.median(), again.median())
    assert after < before * 1.2


def _rate(load: Any) -> float:
    times = [asked.sent for asked in load.asked]
    return len(times) / (max(times) - min(times))


def test_the_server_goes_and_comes_back(lab: RegistryFixture, server: TritonServer) -> None:
    lab.register_onnx("comes-back", times(4.0), example=ROWS)
    promote(lab, server, "comes-back")
    port = free_port()
    path = "/v1/models/comes-back/predict"
    with (
        triton(lab, port) as first,
        service(
            lab,
            "comes-back",
            STLAB_API_BACKEND="triton",
            STLAB_TRITON_URL=first.grpc_url,
            STLAB_API_TIMEOUT_SECONDS=2,
        ) as running,
    ):
        assert running.call(path, ASKED)[0] == 200
        first.stop()
        begin = time.monotonic()
        status, body, _ = running.call(path, ASKED)
        assert status in {503, 504}, body
        assert time.monotonic() - begin < 5
        running.wait(ready=False, seconds=5)
        assert running.call("/health/live")[0] == 200
        with triton(lab, port):
            running.wait(seconds=30)
            assert running.call(path, ASKED)[0] == 200


def test_nothing_that_a_caller_sends_breaks_it(
    lab: RegistryFixture, server: TritonServer, tmp_path: Path
) -> None:
    name = "fuzzed"
    lab.register_torch(name, Several(), np.arange(8, dtype=np.int64).reshape(2, 4), np.ones((2, 1)))
    promote(lab, server, name)
    with service(lab, name, STLAB_API_BACKEND="local", LOG_LEVEL="WARNING") as running:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/openapi.json"),
                "--checks",
                "not_a_server_error,status_code_conformance,content_type_conformance",
                *("--max-examples", "60", "--seed", "1", "--no-color", "--phases",
                  "examples,coverage,fuzzing"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert running.ready()
        assert "Traceback" not in running.log.read_text()


def test_traces_reach_a_collector(lab: RegistryFixture, server: TritonServer) -> None:
    lab.register_onnx("traced", times(5.0), example=ROWS)
    promote(lab, server, "traced")
    sent: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent.append((self.path, gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with service(lab, "traced", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as running:
            assert running.call("/v1/models/traced/predict", ASKED)[0] == 200
        collector.shutdown()
    assert {path for path, _ in sent} == {"/v1/traces"}
    spans = b"".join(body for _, body in sent)
    assert b"/v1/models/traced/predict" in spans
    assert b"/health" not in spans
