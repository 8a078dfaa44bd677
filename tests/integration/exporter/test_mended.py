"""Drift that nobody makes on purpose: made for real, and mended by the commands that are named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.cli import app as cli
from exporter.commands.prune import PruneRequest, PruneResult
from exporter.commands.prune import prune as pruned
from exporter.commands.status.command import StatusRequest, status
from exporter.commands.status.result import StatusResult
from exporter.repository import LocalRepository
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import start
from tests.support.serving import factor, ready

from .test_interrupted import DRIVER

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def settings(lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the commands find when they are run in this process."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.uri)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def model(lab: RegistryFixture, server: TritonServer, request: pytest.FixtureRequest) -> str:
    """A model of three versions, of which the second is in staging, and was after the first."""
    name = str(request.node.name).removeprefix("test_").replace("_", "-")
    made(lab, server, name)
    return name


@pytest.fixture(scope="module")
def shared_model(lab: RegistryFixture, server: TritonServer) -> str:
    """The same, for tests that leave no drift."""
    made(lab, server, "shared")
    return "shared"


def made(lab: RegistryFixture, server: TritonServer, name: str) -> None:
    for number in (1.0, 2.0, 3.0):
        lab.register_onnx(name, times(number), example=ROWS)
    for version in (1, 2):
        promoted(lab, server, name, version=version)


def promoted(
    lab: RegistryFixture, server: TritonServer, model: str, alias: str = "staging", **more: object
) -> None:
    result = lab.export(
        model, alias, repository="repository", triton_urls=(server.grpc_url,), **more
    )
    assert result.status == "promoted", result.error


def looked(lab: RegistryFixture, server: TritonServer, model: str, **more: object) -> StatusResult:
    return status(
        StatusRequest(
            model,
            repository="repository",
            tracking_uri=lab.uri,
            triton_urls=(server.grpc_url,),
            **more,  # type: ignore[arg-type]
        )
    )


def drifts(result: StatusResult) -> dict[str, str]:
    (model,) = result.models
    return {drift.kind: drift.fix for drift in model.drifts}


def run(line: str) -> int:
    """Run what a user would paste; commands of ours in this process, which has imported torch."""
    for part in line.split(" && "):
        words = shlex.split(part)
        if words[0] in {"stlab", "stlab-export"}:
            code = cli._run(words[1:] if words[0] == "stlab" else ["export", *words[1:]])
        else:
            code = subprocess.run(["/bin/sh", "-c", part], check=False).returncode
        if code:
            return code
    return 0


def mended(lab: RegistryFixture, server: TritonServer, model: str, *expected: str) -> None:
    """Run the first fix that is named until nothing drifts; no round is in vain."""
    found = drifts(looked(lab, server, model))
    assert set(expected) <= set(found), found
    seen = []
    while found:
        kind, fix = next(iter(found.items()))
        assert (kind, fix) not in seen, f"{fix} does not mend {kind}"
        seen.append((kind, fix))
        assert run(fix) == 0, fix
        found = drifts(looked(lab, server, model))


def folder(lab: RegistryFixture, model: str, *names: str) -> Path:
    return lab.folder.joinpath("repository", model, *names)


def unproven(lab: RegistryFixture, model: str) -> None:
    lab.client.set_registered_model_alias(model, "staging", "3")


def moved_back(lab: RegistryFixture, model: str) -> None:
    lab.client.set_registered_model_alias(model, "staging", "1")


def alias_deleted(lab: RegistryFixture, model: str) -> None:
    lab.client.delete_registered_model_alias(model, "staging")


def manifest_harmed(lab: RegistryFixture, model: str) -> None:
    file = folder(lab, model, "2", "manifest.json")
    file.write_bytes(file.read_bytes()[:-20])


def report_harmed(lab: RegistryFixture, model: str) -> None:
    file = folder(lab, model, "2", "report.json")
    file.write_bytes(file.read_bytes().replace(b'"passed": true', b'"passed": null'))


def another_bundle(lab: RegistryFixture, model: str) -> None:
    """The same version, exported otherwise to somewhere else, was copied here."""
    result = lab.export(model, "dev", version=2, repository="elsewhere", batching="off")
    assert result.status == "promoted", result.error
    shutil.rmtree(folder(lab, model, "2"))
    shutil.copytree(lab.folder / "elsewhere" / model / "2", folder(lab, model, "2"))
    lab.client.delete_registered_model_alias(model, "dev")
    lab.client.delete_model_version_tag(model, "2", "stlab.promoted.dev")


def config_harmed(lab: RegistryFixture, model: str) -> None:
    folder(lab, model, "config.pbtxt").write_text("name: {{ model }}")


def config_removed(lab: RegistryFixture, model: str) -> None:
    folder(lab, model, "config.pbtxt").unlink()


def config_of_another(lab: RegistryFixture, model: str) -> None:
    file = folder(lab, model, "config.pbtxt")
    file.write_text(file.read_text().replace("versions: 2", "versions: 1"))


def one_more_served(lab: RegistryFixture, model: str) -> None:
    file = folder(lab, model, "config.pbtxt")
    file.write_text(file.read_text().replace("versions: 2", "versions: 1\n    versions: 2"))


def gone(lab: RegistryFixture, model: str, alias: str = "staging") -> None:
    """As in a registry that keeps aliases of versions that it deletes."""
    with sqlite3.connect(lab.folder / "mlflow.db") as database:
        database.execute(
            "UPDATE registered_model_aliases SET version = 99 WHERE name = ? AND alias = ?",
            (model, alias),
        )


def untagged(lab: RegistryFixture, model: str) -> None:
    lab.client.delete_model_version_tag(model, "2", "stlab.parity")


@pytest.mark.parametrize(
    ("harm", "kind", "version"),
    [
        pytest.param(unproven, "no_evidence", 3, id="unproven"),
        pytest.param(untagged, "no_evidence", 2, id="untagged"),
        pytest.param(moved_back, "moved_by_hand", 1, id="moved-back"),
        pytest.param(alias_deleted, "claimed", 2, id="alias-deleted"),
        pytest.param(manifest_harmed, "damaged", 2, id="manifest-harmed"),
        pytest.param(report_harmed, "damaged", 2, id="report-harmed"),
        pytest.param(another_bundle, "other_bundle", 2, id="another-bundle"),
        pytest.param(config_harmed, "config_damaged", 2, id="config-harmed"),
        pytest.param(config_removed, "not_in_config", 2, id="config-removed"),
        pytest.param(config_of_another, "not_in_config", 2, id="config-of-another"),
        pytest.param(one_more_served, "nameless", 2, id="one-more-served"),
        pytest.param(gone, "version_gone", 2, id="gone"),
    ],
)
def test_the_command_that_is_named_mends_it(
    lab: RegistryFixture,
    server: TritonServer,
    shared_model: str,
    harm: Callable[[RegistryFixture, str], None],
    kind: str,
    version: int,
) -> None:
    model = shared_model
    where = f"--repository repository --triton-url {server.grpc_url}"
    assert run(f"stlab rollback {model} --alias staging --to 2 {where}") == 0
    assert drifts(looked(lab, server, model)) == {}
    harm(lab, model)
    mended(lab, server, model, kind)
    assert lab.alias(model) == version
    assert factor(server, model) == float(version)


def test_the_same_export_heals_a_published_file_that_is_cut(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    root = folder(lab, model)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in ("config.pbtxt", "2/manifest.json", "2/report.json"):
        path = root / name
        path.unlink()
        path.write_bytes(before[path][: len(before[path]) // 2])
        promoted(lab, server, model, version=2)
        assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
        assert drifts(looked(lab, server, model)) == {}
    assert factor(server, model) == 2


def test_a_promotion_to_prod_that_was_killed(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    """Killed once 'archived' was moved, and the config as well, and before 'prod' was."""
    promoted(lab, server, model, "prod")
    promoted(lab, server, model, version=3)
    where = ["--repository", "repository", "--triton-url", server.grpc_url]
    driver = DRIVER.replace("def standing_still(*given, **named):", _SECOND)
    point = "exporter.registry.promote:_Changes.move_alias"
    process = start(
        lab.folder, *(point, model, "--alias", "prod"), *where,
        driver=driver, CI="true", MLFLOW_TRACKING_URI=lab.uri,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "here\n"
    finally:
        process.kill()
        process.communicate(60)
    assert {alias: lab.alias(model, alias) for alias in ("prod", "archived")} == {
        "prod": 2, "archived": 2,
    }  # fmt: skip
    mended(lab, server, model, "interrupted")
    assert {alias: lab.alias(model, alias) for alias in ("prod", "archived")} == {
        "prod": 3, "archived": 2,
    }  # fmt: skip


_SECOND = """def standing_still(*given, **named):
    if given[1] != "prod":
        return original(*given, **named)"""


def test_prod_moved_by_hand_to_a_version_that_was_never_proven(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    promoted(lab, server, model, "prod")
    lab.client.set_registered_model_alias(model, "prod", "3")
    mended(lab, server, model, "no_evidence")
    assert lab.alias(model, "prod") == 2


def test_a_server_that_was_not_told(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    result = lab.export(model, version=3, repository="repository")
    assert result.status == "promoted", result.error
    assert ready(server, model) == [2]
    found = drifts(looked(lab, server, model))
    assert set(found) == {"not_served", "nameless"}
    mended(lab, server, model, "not_served")
    assert factor(server, model) == 3.0


def test_every_model_that_was_exported(
    lab: RegistryFixture, server: TritonServer, shared_model: str
) -> None:
    lab.register_onnx("never-exported", times(1.0), example=ROWS)
    lab.client.create_registered_model("hollow")
    lab.client.create_registered_model("not a name of ours")
    found = looked(lab, server, None)  # type: ignore[arg-type]
    names = [entry.model for entry in found.models]
    assert shared_model in names
    assert not {"never-exported", "hollow", "not a name of ours"} & set(names)


def test_quick_reads_no_model(
    lab: RegistryFixture, server: TritonServer, shared_model: str
) -> None:
    file = folder(lab, shared_model, "2", "model.onnx")
    before = drifts(looked(lab, server, shared_model))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"!")
    assert drifts(looked(lab, server, shared_model, quick=True)) == before
    assert "damaged" in drifts(looked(lab, server, shared_model))
    file.write_bytes(content)


def test_the_exit_code_is_for_checks(
    lab: RegistryFixture, server: TritonServer, shared_model: str
) -> None:
    config_removed(lab, shared_model)
    asked = f"stlab status {shared_model} --repository repository"
    assert run(asked) == 0
    assert run(f"{asked} --check") == 5
    assert run(f"{asked} --check --alias prod") == 0
    assert run(f"{asked} --alias none") == 4
    mended(lab, server, shared_model, "not_in_config")


def test_a_server_that_still_has_what_lost_its_name(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    promoted(lab, server, model, "dev", version=3)
    lab.client.delete_registered_model_alias(model, "dev")
    lab.client.delete_model_version_tag(model, "3", "stlab.promoted.dev")
    assert run(f"stlab prune {model} --nameless --repository repository") == 0
    found = drifts(looked(lab, server, model))
    assert set(found) == {"nameless"}
    assert factor(server, model) == 3.0
    mended(lab, server, model, "nameless")
    assert factor(server, model) == 2.0


def prune(lab: RegistryFixture, model: str, **more: object) -> PruneResult:
    return pruned(
        PruneRequest(model, repository="repository", tracking_uri=lab.uri, **more)  # type: ignore[arg-type]
    )


def test_what_cannot_be_read_is_not_pruned(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    for version in (3, 2, 3):
        promoted(lab, server, model, version=version)
    file = folder(lab, model, "1", "manifest.json")
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    result = prune(lab, model, keep=0)
    assert (result.status, result.removed) == ("unchanged", ())
    assert "manifest.json cannot be read" in result.kept[1]
    file.write_bytes(content)
    assert prune(lab, model, keep=0).removed == (1,)


def test_nothing_is_pruned_where_nobody_can_tell_what_is_served(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    file = folder(lab, model, "config.pbtxt")
    content = file.read_text()
    before_policy, after_policy = re.split(r"version_policy \{.*?\n\}\n", content, flags=re.DOTALL)
    # One that leaves the versions to the server was not written by stlab; a short one was damaged.
    for damaged, exit_code in ((before_policy + after_policy, 5), (before_policy, 3)):
        file.write_text(damaged)
        before = lab.repository_bytes()
        result = prune(lab, model, keep=0)
        assert (result.exit_code, result.removed) == (exit_code, ())
        assert lab.repository_bytes() == before


def test_what_an_interrupted_promotion_needs_is_not_pruned(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    promoted(lab, server, model, version=3)
    promoted(lab, server, model, version=2)
    record = json.loads(lab.client.get_model_version(model, "3").tags["stlab.promoted.staging"])
    record |= {"from": 2, "at": "2100-01-01T00:00:00+00:00"}
    del record["until"]
    tag = "stlab.promoted.staging"
    lab.client.set_model_version_tag(model, "3", tag, json.dumps(record))
    assert prune(lab, model, keep=0).removed == (1,)
    mended(lab, server, model, "interrupted")
    assert factor(server, model) == 3.0


def test_pruning_that_is_stopped_says_what_is_gone(
    lab: RegistryFixture, server: TritonServer, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (3, 1, 2):
        promoted(lab, server, model, version=version)
    lab.register_onnx(model, times(4.0), example=ROWS)
    for version in (4, 2, 4):
        promoted(lab, server, model, version=version)
    remove = LocalRepository.remove

    def stopped(repository: LocalRepository, name: str, version: int, work: Path) -> None:
        if version == 3:
            raise KeyboardInterrupt
        remove(repository, name, version, work)

    monkeypatch.setattr(LocalRepository, "remove", stopped)
    result = prune(lab, model, keep=0)
    assert (result.status, result.exit_code, result.removed) == ("failed", 1, (1,))
    monkeypatch.undo()
    assert sorted(path.name for path in folder(lab, model).iterdir() if path.name.isdigit()) == [
        "2", "3", "4",
    ]  # fmt: skip


def served_by_two(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    """Version 3 is in dev, and somebody moves staging there by hand."""
    promoted(lab, server, model, "dev", version=3)
    lab.client.set_registered_model_alias(model, "staging", "3")
    assert "no_evidence" in drifts(looked(lab, server, model))


def test_moved_by_hand_to_what_another_alias_serves(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    served_by_two(lab, server, model)
    mended(lab, server, model)
    assert {alias: lab.alias(model, alias) for alias in ("dev", "staging")} == {
        "dev": 3, "staging": 3,
    }  # fmt: skip
    promoted(lab, server, model, "prod")
    assert lab.alias(model, "prod") == 3


def test_prod_where_the_registry_has_lost_its_version(
    lab: RegistryFixture, server: TritonServer, model: str
) -> None:
    promoted(lab, server, model, "prod")
    gone(lab, model, "prod")
    promoted(lab, server, model, version=3)
    promoted(lab, server, model, "prod")
    assert lab.alias(model, "prod") == 3
    assert lab.alias(model, "archived") is None
