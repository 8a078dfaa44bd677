"""Exports that are killed, stopped, raced or run out of disk: nothing half-done stays."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from exporter.repository.workspace import open_workspace
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command, small_disk, start

pytestmark = pytest.mark.triton

# Stands still at one point of the way, says so, and waits for what is done to it.
DRIVER = """
import sys, time
from importlib import import_module
module, _, name = sys.argv[1].partition(":")
owner = import_module(module)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
original = getattr(owner, last)
def standing_still(*given, **named):
    print("here", flush=True)
    time.sleep(60)
setattr(owner, last, standing_still)
from exporter.cli import main
main(["export", *sys.argv[2:]])
"""
PROVING = "exporter.proving.prove:check_outputs"
PUBLISHED = "exporter.repository.local_repository:LocalRepository.activate"
ACTIVATED = "exporter.registry.promote:_promote"
MOVED = "exporter.registry.promote:close_records"


def stop(lab: RegistryFixture, name: str, point: str, how: signal.Signals) -> tuple[int, str]:
    """Export version 2, and send a signal at one point; returns exit code and stdout."""
    arguments = [name, "--alias", "staging", "--version", "2", "--repository", "repository"]
    process = start(
        lab.folder, point, *arguments, "--json", driver=DRIVER, MLFLOW_TRACKING_URI=lab.uri
    )
    try:
        assert process.stdout.readline() == "here\n"
        assert servers(lab) if point == PROVING else True
        process.send_signal(how)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate(30)
    return process.wait(), output


def servers(lab: RegistryFixture) -> list[str]:
    """The command lines of servers on a folder of this lab."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "tritonserver" in line and str(lab.folder) in line:
            found.append(line)
    return found


def workspaces(lab: RegistryFixture, name: str) -> list[str]:
    folder = lab.folder / ".repository.stlab" / name
    return [path.name for path in folder.glob("*") if path.name != "lock"]


@pytest.fixture
def two_versions(lab: RegistryFixture, request: pytest.FixtureRequest) -> str:
    """A model whose first version is served and whose second is to come."""
    name = str(request.node.callspec.id)
    for factor in (1.0, 2.0):
        lab.register_onnx(name, times(factor), example=ROWS)
    assert lab.export(name, version=1).status == "promoted"
    return name


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(PROVING, id="killed-while-proving"),
        pytest.param(PUBLISHED, id="killed-once-published"),
        pytest.param(ACTIVATED, id="killed-once-activated"),
    ],
)
def test_a_killed_run_is_finished_by_the_next(
    lab: RegistryFixture, two_versions: str, point: str
) -> None:
    name = two_versions
    config = lab.folder / "repository" / name / "config.pbtxt"
    before = config.read_bytes()
    code, _ = stop(lab, name, point, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert lab.alias(name) == 1
    if point != ACTIVATED:
        assert config.read_bytes() == before
    assert {path.name for path in config.parent.iterdir()} <= {"1", "2", "config.pbtxt", "warmup"}
    assert workspaces(lab, name)
    deadline = time.monotonic() + 10
    while servers(lab) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers(lab) == []
    result = lab.export(name, version=2)
    assert result.status == "promoted", result.error
    # Only what was vouched for is taken over; the rest is proven anew.
    assert (result.bundle or {})["reused"] is (point == ACTIVATED)
    assert workspaces(lab, name) == []
    assert lab.export(name, version=2).status == "unchanged"


@pytest.mark.parametrize("point", [pytest.param(MOVED, id="killed-once-moved")])
def test_what_is_done_is_only_tidied_up(
    lab: RegistryFixture, two_versions: str, point: str
) -> None:
    name = two_versions
    stop(lab, name, point, signal.SIGKILL)
    assert lab.alias(name) == 2
    assert workspaces(lab, name)
    assert lab.export(name, version=2).status == "unchanged"
    assert workspaces(lab, name) == []
    run_id = lab.client.get_model_version(name, "2").tags["stlab.export.run_id"]
    assert lab.client.get_run(run_id).info.status == "KILLED"
    first = lab.client.get_model_version(name, "1").tags["stlab.promoted.staging"]
    assert "until" in json.loads(first)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(PROVING, id="stopped-while-proving"),
        pytest.param(ACTIVATED, id="stopped-once-activated"),
    ],
)
def test_a_stopped_run_undoes_what_it_did(
    lab: RegistryFixture, two_versions: str, point: str
) -> None:
    name = two_versions
    before = lab.repository_bytes()
    code, output = stop(lab, name, point, signal.SIGTERM)
    assert code == 1
    assert '"kind": "interrupted"' in output
    assert lab.repository_bytes() == before
    assert (lab.alias(name), workspaces(lab, name), servers(lab)) == (1, [], [])
    if point == ACTIVATED:
        run_id = lab.client.get_model_version(name, "2").tags["stlab.export.run_id"]
        assert lab.client.get_run(run_id).info.status == "FAILED"


def test_a_second_exporter_is_told_who_is_first(lab: RegistryFixture) -> None:
    lab.register_onnx("busy", times(1.0), example=ROWS)
    with open_workspace(lab.folder / "repository", "busy"):
        result = lab.export("busy")
    assert result.exit_code == 5
    assert result.error is not None
    assert f"process {os.getpid()} on " in result.error["message"]
    assert lab.alias("busy") is None
    assert lab.export("busy").status == "promoted"


# The artifact takes 1,000 KiB, and so does what is made of it.
@pytest.mark.parametrize("kilobytes", [500, 1100, 2000])
def test_a_full_disk(lab: RegistryFixture, tmp_path: Path, kilobytes: int) -> None:
    name = f"full-{kilobytes}"
    lab.register_onnx(name, times(1.0, weights=250_000), example=ROWS)
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        result = lab.export(name, repository=str(disk / "repository"))
        assert result.exit_code == 6, result
        assert result.error is not None
        assert "Free" in result.error["hint"]
        assert lab.alias(name) is None
        assert list((disk / "repository").glob("**/*")) == []
        assert list(disk.glob(".*/*/work-*")) == []


def test_a_file_that_may_not_grow(lab: RegistryFixture) -> None:
    """The same without root: the process may write no file beyond a size."""
    lab.register_onnx("grown", times(1.0, weights=2_000_000), example=ROWS)
    limit = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20));"
        "from exporter.cli import main; main()"
    )
    asked = ["grown", "--alias", "dev", "--repository", "limited", "--json"]
    ran = command(lab.folder, *asked, driver=limit, MLFLOW_TRACKING_URI=lab.uri)
    assert ran.code == 6, ran.stderr
    assert "Free" in ran.result["error"]["hint"]
    assert lab.alias("grown", "dev") is None
    assert not (lab.folder / "limited").exists()
