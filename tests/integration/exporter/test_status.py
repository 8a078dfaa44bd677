"""Drift of every kind, made for real, found, and mended by the very command that is named."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command
from tests.support.serving import factor, ready

pytestmark = pytest.mark.triton
BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")


def run(lab: RegistryFixture, line: str, code: int = 0) -> Any:
    """Run a command of a shell in the lab's folder; returns the object that it prints."""
    settings = {"MLFLOW_TRACKING_URI": lab.uri, "CI": "true"}
    for part in line.split(" && "):
        words = shlex.split(part)
        if words[0] == "stlab":
            done = command(lab.folder, *words[2:], verb=words[1], **settings)
        elif words[0] == "stlab-export":
            done = command(lab.folder, *words[1:], **settings)
        else:
            path = f"{BIN}:/usr/bin:/bin"
            done = command(lab.folder, part, program=["/bin/sh", "-c"], PATH=path, **settings)
        if done.code:
            break
    assert done.code == code, (done.stdout, done.stderr)
    return json.loads(done.stdout) if "--json" in line else done.stdout


def looked(lab: RegistryFixture, server: TritonServer, model: str, code: int) -> Any:
    return run(lab, f"stlab status {model} --check {where(server)}", code)


def where(server: TritonServer) -> str:
    return f"--repository repository --triton-url {server.grpc_url} --json"


def drifts(found: Any) -> list[tuple[str, str]]:
    (model,) = found["models"]
    of_aliases = [drift for alias in model["aliases"] for drift in alias["drift"]]
    return [(drift["kind"], drift["fix"]) for drift in [*of_aliases, *model["drift"]]]


def sold(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    """Two versions went up to prod, by way of a repository of staging's own."""
    for number in (1.0, 2.0):
        lab.register_onnx(model, times(number), example=ROWS)
        staged = lab.export(model, repository="staging-models")
        assert staged.status == "promoted", staged.error
        result = lab.export(model, "prod", triton_urls=(server.grpc_url,))
        assert result.status == "promoted", result.error


@pytest.fixture(scope="module")
def model(lab: RegistryFixture, server: TritonServer) -> str:
    """A model that every test leaves without drift."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        sold(lab, server, "straight")
    return "straight"


def test_no_drift(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    found = looked(lab, server, "straight", 0)
    assert (found["status"], drifts(found)) == ("ok", [])
    aliases = {entry["alias"]: entry for entry in found["models"][0]["aliases"]}
    assert list(aliases) == ["staging", "prod", "archived"]
    assert {alias: entry["version"] for alias, entry in aliases.items()} == {
        "staging": 2, "prod": 2, "archived": 1,
    }  # fmt: skip
    assert aliases["staging"]["repository"]["elsewhere"] is True
    prod = aliases["prod"]
    assert prod["repository"] == {
        "published": True, "whole": True, "served": True, "elsewhere": False,
    }  # fmt: skip
    assert prod["servers"] == [{"url": server.grpc_url, "served": True}]
    assert prod["parity"]["passed"] is True
    text = run(lab, "stlab status straight --repository repository")
    assert "no drift" in text


def folder(lab: RegistryFixture, model: str) -> Path:
    return lab.folder / "repository" / model


def by_hand(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    lab.client.set_registered_model_alias(model, "prod", "1")


def one_byte(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    file = folder(lab, model) / str(lab.alias(model, "prod")) / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def removed(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    shutil.rmtree(folder(lab, model) / str(lab.alias(model, "prod")))


def edited(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    config = folder(lab, model) / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: 4"))


def unloaded(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    with server.client() as client:
        client.repository.unload(model)


def interrupted(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    lab.client.set_registered_model_alias(model, "archived", "2")


def not_closed(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    tag = "stlab.promoted.prod"
    record = json.loads(lab.client.get_model_version(model, "1").tags[tag])
    del record["until"]
    lab.client.set_model_version_tag(model, "1", tag, json.dumps(record))


def unproven(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    lab.client.delete_model_version_tag(model, "2", "stlab.parity")


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (one_byte, "damaged"),
        (removed, "not_published"),
        (edited, "config_differs"),
        (unloaded, "not_served"),
        (not_closed, "claimed"),
        (by_hand, "moved_by_hand"),
    ],
)
def test_drift_is_found_and_mended(
    lab: RegistryFixture,
    server: TritonServer,
    model: str,
    harm: Callable[[RegistryFixture, TritonServer, str], None],
    kind: str,
) -> None:
    harm(lab, server, model)
    found = drifts(looked(lab, server, model, 5))
    assert kind in dict(found), found
    for _ in range(2):
        # What is mended may show what was hidden behind it.
        for fix in dict.fromkeys(fix for _, fix in found):
            run(lab, fix)
        found = drifts(run(lab, f"stlab status {model} {where(server)}"))
        if not found:
            break
    assert drifts(looked(lab, server, model, 0)) == []
    version = lab.alias(model, "prod")
    assert version is not None
    assert (factor(server, model), ready(server, model)) == (float(version), [version])


def test_drift_of_the_registry_is_found(lab: RegistryFixture, server: TritonServer) -> None:
    sold(lab, server, "registry")
    interrupted(lab, server, "registry")
    assert "interrupted" in dict(drifts(looked(lab, server, "registry", 5)))
    unproven(lab, server, "registry")
    assert "no_evidence" in dict(drifts(looked(lab, server, "registry", 5)))


def test_what_cannot_be_looked_at(lab: RegistryFixture, model: str) -> None:
    assert run(lab, "stlab status absent --json", 4)["status"] == "failed"
    asked = "--repository repository --triton-url 127.0.0.1:9 --json"
    found = run(lab, f"stlab status {model} {asked}", 6)
    assert found["error"]["kind"] == "unavailable"
    aliases = {entry["alias"]: entry for entry in found["models"][0]["aliases"]}
    assert aliases["prod"]["servers"] == [{"url": "127.0.0.1:9", "served": None}]


def test_live_servers_are_verified(lab: RegistryFixture, server: TritonServer, model: str) -> None:
    line = f"stlab verify {model} --alias prod {where(server)}"
    passed = run(lab, line)
    (verdict,) = passed["servers"]
    assert (passed["status"], verdict["passed"]) == ("passed", True)
    assert 0 <= verdict["margin"] < 1
    assert verdict["cases"] > 3
    assert passed["bundle"]["source"] == "repository"
    # The same from the registry, where the repository has it no more.
    removed(lab, server, model)
    assert run(lab, line)["bundle"]["source"] == "registry"
    unloaded(lab, server, model)
    assert run(lab, line, 5)["error"]["kind"] == "not_ready"
    assert run(lab, line.replace(server.grpc_url, "127.0.0.1:9"), 6)["status"] == "failed"
    assert run(lab, line.replace("--alias prod", "--alias dev"), 4)["status"] == "failed"


def test_a_server_that_answers_otherwise(lab: RegistryFixture, model: str, tmp_path: Path) -> None:
    """Another model under the same name and number."""
    other = RegistryFixture(tmp_path)
    for number in (1.5, 2.5):
        other.register_onnx(model, times(number), example=ROWS)
    named = lab.alias(model, "prod")
    forged = other.export(model, version=named, repository=str(tmp_path / "repository"))
    assert forged.status == "promoted", forged.error
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    with TritonServer.start(runtime, str(tmp_path / "repository"), models=[model]) as liar:
        liar.wait_live()
        found = run(lab, f"stlab verify {model} --alias prod {where(liar)}", 3)
    assert found["error"]["kind"] == "parity"
    assert found["servers"][0]["passed"] is False


def test_what_nobody_needs_is_pruned(lab: RegistryFixture, server: TritonServer) -> None:
    model = "pruned"
    for number in range(1, 6):
        lab.register_onnx(model, times(float(number)), example=ROWS)
    for version in (1, 2, 3, 5):
        for alias in ("staging", "prod"):
            result = lab.export(
                model,
                alias,
                version=version,
                repository=str(lab.folder / "repository"),
                triton_urls=(server.grpc_url,),
            )
            assert result.status == "promoted", result.error
    line = f"stlab prune {model} --keep 1 --repository repository --json"
    planned = run(lab, f"{line} --dry-run")
    assert (planned["status"], planned["removed"]) == ("planned", [1, 2])
    assert run(lab, line)["removed"] == [1, 2]
    folder = lab.folder / "repository" / model
    assert {path.name for path in folder.iterdir()} - {"warmup"} == {"3", "5", "config.pbtxt"}
    assert run(lab, line)["status"] == "unchanged"
    assert ready(server, model) == []
    assert factor(server, model) == 5.0
    assert run(lab, f"stlab rollback {model} --alias prod --repository repository --json")
    assert lab.alias(model, "prod") == 3
