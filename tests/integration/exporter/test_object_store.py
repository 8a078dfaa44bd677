"""A repository on an object store, from the command to the answers of a server that reads it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.load import under_load
from tests.support.models import ROWS, times
from tests.support.moto_s3 import BUCKET, CREDENTIALS, S3, serving
from tests.support.ports import free_port
from tests.support.registering import RegistryFixture
from tests.support.running import Ran, command, environment
from triton_client import TritonClient
from triton_client.errors import TritonClientError

pytestmark = pytest.mark.triton

log = logging.getLogger(__name__)
URL = f"s3://{BUCKET}/production/models"
SECRETS = [CREDENTIALS["AWS_SECRET_ACCESS_KEY"], CREDENTIALS["AWS_SESSION_TOKEN"]]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serving() as server:
        server.reset()
        yield server


@dataclass
class Served:
    """`stlab serve` on the store."""

    process: subprocess.Popen[bytes]
    url: str

    def factor(self) -> float:
        with TritonClient(self.url) as client:
            answer = client.model("times").infer({"x": ROWS})["y"]
        return float(np.round((answer / ROWS).mean(), 3))

    def command_lines(self) -> str:
        """Of every process that it started."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if self.url.partition(":")[2] in line:
                found.append(line)
        return "\n".join(found)


def export(lab: RegistryFixture, s3: S3, *options: str, **settings: str) -> Ran:
    told = {"MLFLOW_TRACKING_URI": lab.uri, **s3.settings, **settings}
    arguments = ["times", "--alias", "staging", "--repository", URL, *options, "--json"]
    ran = command(lab.folder, *arguments, **told)
    assert not [secret for secret in SECRETS if secret in ran.stdout + ran.stderr]
    return ran


def promoted(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.stderr
    return ran.result


@pytest.fixture(scope="module")
def served(lab: RegistryFixture, s3: S3) -> Iterator[Served]:
    """A server on what a first export published."""
    for factor in (1.0, 2.0):
        lab.register_onnx("times", times(factor), example=ROWS)
    scratch = lab.folder / "scratch"
    scratch.mkdir()
    result = promoted(export(lab, s3, "--version", "1", TMPDIR=str(scratch)))
    assert (result["status"], result["repository"]) == ("promoted", URL)
    assert list(scratch.glob("stlab-*")) == [], "nothing is left"
    ports = [free_port() for _ in range(3)]
    names = ("--http-port", "--grpc-port", "--metrics-port")
    flags = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter.cli", "serve", "--repository", URL, *flags],
        cwd=lab.folder,
        env=environment(**s3.settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Served(process, f"127.0.0.1:{ports[1]}")
    try:
        wait_for(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def wait_for(server: Served, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.process.poll() is None, "the server ended"
        try:
            server.factor()
        except TritonClientError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the server serves nothing")


def test_what_is_exported_is_served(s3: S3, served: Served) -> None:
    assert {name for name in s3.objects() if name.startswith("production/models/")} >= {
        f"production/models/times/{name}"
        for name in ("config.pbtxt", "1/manifest.json", "1/model.onnx", "1/samples.npz")
    }
    assert served.factor() == 1.0


def test_the_server_is_told_the_endpoint_and_no_secret(s3: S3, served: Served) -> None:
    lines = served.command_lines()
    assert f"--model-repository={s3.url()}" in lines
    assert not [secret for secret in SECRETS if secret in lines]


def test_the_samples_in_the_store_are_replayed(
    lab: RegistryFixture, s3: S3, served: Served
) -> None:
    done = command(
        lab.folder,
        *("times", "--alias", "staging", "--repository", URL, "--triton-url", served.url, "--json"),
        verb="verify",
        MLFLOW_TRACKING_URI=lab.uri,
        **s3.settings,
    )
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["bundle"]["source"]) == ("passed", "repository")
    assert result["servers"][0]["cases"] > 3


def test_the_same_again_changes_nothing(lab: RegistryFixture, s3: S3, served: Served) -> None:
    before = s3.objects()
    result = promoted(export(lab, s3, "--version", "1", "--triton-url", served.url))
    assert result["status"] == "unchanged"
    assert s3.objects() == before


def test_another_version_is_switched_to(lab: RegistryFixture, s3: S3, served: Served) -> None:
    result = promoted(export(lab, s3, "--version", "2", "--triton-url", served.url))
    assert (result["status"], result["served_version"]) == ("promoted", 2)
    assert served.factor() == 2.0
    assert lab.alias("times") == 2
    assert "production/models/times/1/manifest.json" in s3.objects(), "kept to go back to"
    left = [name for name in s3.objects() if "/.models.stlab/times/" in name]
    assert [name.rpartition("/")[2][:5] for name in left] == ["lock-"]


def test_to_and_fro_under_load(
    lab: RegistryFixture, s3: S3, served: Served, tmp_path: Path
) -> None:
    where = ("--triton-url", served.url)
    with under_load(served.url, "times", tmp_path / "load.npz") as loads:
        spans = []
        for number in (1, 2):
            time.sleep(0.5)
            begin = time.monotonic()
            promoted(export(lab, s3, "--version", str(number), *where))
            spans.append((begin, time.monotonic()))
        time.sleep(0.5)
        s3.falls_silent = lambda request: request["REQUEST_METHOD"] == "PUT"
        failed = export(lab, s3, "--version", "1", *where)
        undone = time.monotonic()
        time.sleep(0.3)
    s3.falls_silent, s3.is_silent = None, False
    assert (failed.code, failed.result["error"]["kind"]) == (6, "unavailable")
    (load,) = loads
    assert load.problems == []
    assert load.between(0, spans[0][0]) == {2.0}
    assert load.between(spans[0][1], spans[1][0]) == {1.0}
    assert load.between(spans[1][1], undone) == {2.0}
    assert load.between(undone, time.monotonic()) == {2.0}
    assert lab.alias("times") == 2
    log.info("%d calls, %.0f a second", len(load.sent), load.rate)


def test_a_store_that_is_not_there(lab: RegistryFixture, s3: S3, served: Served) -> None:
    before = lab.alias("times")
    begin = time.monotonic()
    gone = export(lab, s3, "--version", "1", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (gone.code, gone.result["error"]["kind"]) == (6, "unavailable")
    assert time.monotonic() - begin < 30
    assert lab.alias("times") == before


def test_a_url_that_is_no_repository(tmp_path: Path, s3: S3) -> None:
    url = f"s3://key:password@host/{BUCKET}/models"
    ran = command(tmp_path, "times", "--alias", "dev", "--repository", url, **s3.settings)
    assert (ran.code, "Triton would misread" in ran.stderr) == (2, True), ran.stderr
    assert "password" not in ran.stderr
    assert not Path(tmp_path, "mlflow.db").exists()
