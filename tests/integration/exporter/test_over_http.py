"""Exports from a registry behind ``mlflow server``, with the artifacts proxied by it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .models import ROWS, Layers, times
from .registering import Lab
from .running import command, environment

pytestmark = pytest.mark.triton


@dataclass(frozen=True)
class Served(Lab):
    """A registry behind a server."""

    address: str = ""

    @property
    def uri(self) -> str:
        return self.address


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"),
        ],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None
                time.sleep(0.1)
        yield Served(folder, address)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_whole_way(served: Served) -> None:
    served.register_torch("net", Layers().eval(), ROWS)
    result = served.export("net", "dev")
    assert result.status == "promoted", result.error
    assert served.alias("net", "dev") == 1
    assert (served.folder / "repository" / "net" / "1" / "model.onnx").is_file()
    tags = served.client.get_model_version("net", "1").tags
    run = served.client.get_run(tags["stlab.export.run_id"])
    assert run.info.status == "FINISHED"
    entries = served.client.list_artifacts(run.info.run_id, "bundle")
    assert "bundle/manifest.json" in {entry.path for entry in entries}
    # The bundle comes back whole through the server.
    asked = ["net", "--alias", "staging", "--json", "--repository", "repository"]
    again = command(served.folder, *asked, MLFLOW_TRACKING_URI=served.uri)
    assert again.code == 0, again.stderr
    assert again.result["bundle"]["reused"] is True
    assert "convert" not in again.result["seconds"]
    assert served.alias("net", "staging") == 1


def test_unknown_names(served: Served) -> None:
    served.register_onnx("known", times(1.0), example=ROWS)
    unknown = served.export("unknown", "dev")
    assert (unknown.exit_code, unknown.error is not None) == (4, True)
    assert "known" in (unknown.error or {})["message"]
    version = served.export("known", "dev", version=9)
    assert version.exit_code == 4
    assert "it has 1" in (version.error or {})["message"]


def test_an_artifact_that_is_gone(served: Served) -> None:
    served.register_onnx("gone", times(1.0), example=ROWS)
    uri = served.client.get_model_version_download_uri("gone", "1")
    (folder,) = (served.folder / "artifacts").rglob(uri.rpartition("/models/")[2].split("/")[0])
    shutil.rmtree(folder)
    result = served.export("gone", "dev")
    assert result.exit_code == 4, (result.error or {})["message"]
    assert served.alias("gone", "dev") is None
