"""`stlab doctor` on this machine, with a real registry and real servers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from exporter.commands.doctor.command import DoctorRequest, doctor
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import Ran, command, files

pytestmark = pytest.mark.triton


def stlab(folder: Path, *arguments: str, **settings: str) -> Ran:
    return command(folder, *arguments, verb="doctor", **settings)


def test_a_machine_with_everything_for_the_default_way(lab: RegistryFixture) -> None:
    lab.register_onnx("times", times(2.0), example=ROWS)
    before = files(lab.folder)
    ran = stlab(lab.folder, "--json", MLFLOW_TRACKING_URI=lab.uri)
    assert ran.code == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    told = json.loads(line)
    assert set(told) == {"schema", "status", "release", "checks", "error"}
    assert (told["schema"], told["status"], told["error"]) == (1, "ok", None)
    assert told["release"] == DEFAULT_RELEASE
    checks = {check["name"]: check for check in told["checks"]}
    assert all(set(check) == {"name", "status", "found", "hint"} for check in told["checks"])
    for name in ("python", "torch", "onnx", "onnxruntime", "tritonserver", "cache", "repository"):
        assert checks[name]["status"] == "ok", checks[name]
    assert checks["registry"]["found"].endswith("1 registered model")
    assert {"flavor sklearn", "flavor xgboost", "flavor lightgbm"} <= set(checks)
    assert files(lab.folder) == before


def test_what_was_named_and_does_not_answer(lab: RegistryFixture) -> None:
    ran = stlab(
        lab.folder,
        *["--triton-url", "127.0.0.1:9", "--triton-release", "27.01"],
        MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9",
        COLUMNS="200",
    )
    assert ran.code == 6
    lines = {line.split("  ")[0]: line for line in ran.stdout.splitlines()}
    assert lines["check"].split() == ["check", "status", "found", "fix"]
    assert "failed" in lines["registry"]
    assert "failed" in lines["server 127.0.0.1:9"]
    assert "warning" in lines["release"]
    assert "secret" not in ran.stdout + ran.stderr
    assert "registry, server 127.0.0.1:9" in ran.stderr
    assert "hint: " in ran.stderr
    wrong = stlab(lab.folder, "--json", "--triton-release", "none")
    assert wrong.code == 2
    told = json.loads(wrong.stdout)
    assert (told["status"], told["checks"]) == ("failed", [])
    assert "is not a Triton release" in told["error"]["message"]


def test_servers_say_their_version_and_mode(lab: RegistryFixture, tmp_path: Path) -> None:
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    (tmp_path / "models").mkdir()
    with (
        TritonServer.start(runtime, str(tmp_path / "models")) as explicit,
        TritonServer.start(runtime, str(tmp_path / "models"), control_mode="none") as fixed,
    ):
        for server in (explicit, fixed):
            server.wait_live()
        urls = (explicit.grpc_url, fixed.grpc_url)
        result = doctor(DoctorRequest(tracking_uri=lab.uri, triton_urls=urls))
    assert result.exit_code == 0
    first, second = result.checks[-2:]
    assert (first.name, first.status) == (f"server {explicit.grpc_url}", "ok")
    assert re.fullmatch(r"Triton \d+\.\d+\.\d+ \(release .+\), accepts load requests", first.found)
    assert (second.name, second.status) == (f"server {fixed.grpc_url}", "warning")
    assert "accepts no load requests" in second.found
    assert "--model-control-mode=explicit" in second.hint
