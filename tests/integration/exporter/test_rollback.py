"""Up the ladder to prod, and back down, in a real registry and on a real server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from exporter.commands.export.result import ExportResult
from exporter.commands.rollback import RollbackRequest, rollback
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command
from tests.support.serving import factor, ready

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("CI_PIPELINE_URL", "pipeline/7")


def register(lab: RegistryFixture, name: str, *factors: float) -> None:
    for number in factors:
        lab.register_onnx(name, times(number), example=ROWS)


def back(lab: RegistryFixture, name: str, alias: str = "prod", **options: Any) -> ExportResult:
    options.setdefault("repository", str(lab.folder / "repository"))
    return rollback(RollbackRequest(name, alias, tracking_uri=lab.uri, **options))


def done(result: ExportResult, status: str = "promoted") -> ExportResult:
    assert result.status == status, result.error
    return result


def failed(result: ExportResult, code: int, words: str) -> None:
    assert result.error is not None, result
    assert (result.exit_code, words in result.error["message"]) == (code, True), result.error


def record(lab: RegistryFixture, name: str, version: int, alias: str) -> dict[str, Any]:
    return dict(json.loads(tags(lab, name, version)[f"stlab.promoted.{alias}"]))


def tags(lab: RegistryFixture, name: str, version: int) -> dict[str, str]:
    return dict(lab.client.get_model_version(name, str(version)).tags)


def aliases(lab: RegistryFixture, name: str) -> dict[str, int]:
    named = lab.client.get_registered_model(name).aliases
    return {alias: int(version) for alias, version in named.items()}


def sold(lab: RegistryFixture, name: str, *servers: TritonServer) -> None:
    """Take both versions of a model up to prod."""
    urls = tuple(server.grpc_url for server in servers)
    register(lab, name, 1.0, 2.0)
    for version in (1, 2):
        done(lab.export(name, "staging", version=version, triton_urls=urls))
        done(lab.export(name, "prod", triton_urls=urls))


def test_archived_is_what_prod_named_before(lab: RegistryFixture, server: TritonServer) -> None:
    sold(lab, "ladder", server)
    assert aliases(lab, "ladder") == {"staging": 2, "prod": 2, "archived": 1}
    assert (factor(server, "ladder"), ready(server, "ladder")) == (2.0, [2])
    was, now = record(lab, "ladder", 1, "prod"), record(lab, "ladder", 2, "prod")
    assert (now["from"], now["by"], "until" in now) == (1, "pipeline/7", False)
    assert was["until"] >= now["at"] >= was["at"]
    assert record(lab, "ladder", 1, "archived")["bundle"] == was["bundle"]
    again = done(lab.export("ladder", "prod", triton_urls=(server.grpc_url,)), "unchanged")
    assert again.version == 2
    assert aliases(lab, "ladder")["archived"] == 1


def test_prod_goes_back_to_archived(lab: RegistryFixture, server: TritonServer) -> None:
    sold(lab, "returned", server)
    result = done(
        back(lab, "returned", triton_urls=(server.grpc_url,), reason="wrong by night"),
        "rolled_back",
    )
    assert (result.version, result.previous, result.served_version) == (1, 2, 1)
    assert not {"convert", "pull", "fetch", "prove"} & set(result.seconds)
    assert aliases(lab, "returned") == {"staging": 2, "prod": 1, "archived": 2}
    # Staging still names version 2, and the repository is the same.
    assert ready(server, "returned") == [1, 2]
    now = record(lab, "returned", 1, "prod")
    assert (now["from"], now["by"], now["reason"]) == (2, "pipeline/7", "wrong by night")
    assert "until" not in now
    assert record(lab, "returned", 2, "prod")["until"]
    assert record(lab, "returned", 1, "archived")["until"]


def test_back_to_a_named_version_twice(lab: RegistryFixture, server: TritonServer) -> None:
    sold(lab, "named", server)
    for status in ("rolled_back", "unchanged"):
        done(back(lab, "named", to=1, triton_urls=(server.grpc_url,)), status)
        assert aliases(lab, "named")["prod"] == 1
    done(back(lab, "named", to=2, expect_current=1), "rolled_back")
    failed(back(lab, "named", to=1, expect_current=1), 5, "not 1 as expected")


def test_staging_goes_back_to_where_it_came_from(
    lab: RegistryFixture, server: TritonServer
) -> None:
    register(lab, "staged", 1.0, 2.0)
    for version in (1, 2):
        done(lab.export("staged", version=version, triton_urls=(server.grpc_url,)))
    done(back(lab, "staged", "staging", triton_urls=(server.grpc_url,)), "rolled_back")
    assert aliases(lab, "staged") == {"staging": 1}
    assert (factor(server, "staged"), ready(server, "staged")) == (1.0, [1])


def test_a_version_that_is_kept_in_the_registry_alone(lab: RegistryFixture) -> None:
    sold(lab, "fetched")
    shutil.rmtree(lab.folder / "repository" / "fetched" / "1")
    result = done(back(lab, "fetched"), "rolled_back")
    assert {"fetch", "prove"} <= set(result.seconds)
    assert (lab.folder / "repository" / "fetched" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize("name", ["model.onnx", "config.pbtxt", "manifest.json"])
def test_a_harmed_version_is_not_gone_back_to(lab: RegistryFixture, name: str) -> None:
    model = f"harmed-{name}"
    sold(lab, model)
    uri = record(lab, model, 1, "prod")["uri"]
    run = lab.client.get_run(uri.split("/")[1])
    kept = Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"
    for folder in (kept, lab.folder / "repository" / model / "1"):
        file = folder / name
        file.write_bytes(file.read_bytes().replace(b"onnx", b"onmx", 1) + b" ")
    before = aliases(lab, model), lab.repository_bytes()
    failed(back(lab, model), 5, name)
    assert (aliases(lab, model), lab.repository_bytes()) == before


def test_what_cannot_be_rolled_back(lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    register(lab, "single", 1.0, 2.0)
    failed(back(lab, "absent"), 4, "no registered model")
    failed(back(lab, "single"), 5, "points to no version")
    done(lab.export("single", "staging", version=1))
    done(lab.export("single", "prod"))
    failed(back(lab, "single"), 5, "the previous version of 'prod'")
    failed(back(lab, "single", to=2), 5, "never promoted to 'prod'")
    failed(back(lab, "single", to=9), 5, "never promoted to 'prod'")
    monkeypatch.setenv("CI", "")
    failed(back(lab, "single"), 2, "by CI only")
    assert aliases(lab, "single") == {"staging": 1, "prod": 1}


def test_an_interrupted_promotion_is_finished_or_taken_back(lab: RegistryFixture) -> None:
    """Killed after 'archived' was moved and before 'prod' was."""
    for name in ("finished", "taken-back"):
        sold(lab, name)
        lab.client.set_registered_model_alias(name, "archived", "2")
    done(back(lab, "taken-back"), "rolled_back")
    assert aliases(lab, "taken-back") == {"staging": 2, "prod": 1, "archived": 2}
    register(lab, "finished", 3.0)
    done(lab.export("finished", "staging"))
    done(lab.export("finished", "prod"))
    assert aliases(lab, "finished") == {"staging": 3, "prod": 3, "archived": 2}


def test_the_command(lab: RegistryFixture, server: TritonServer) -> None:
    sold(lab, "commanded", server)
    settings = {"MLFLOW_TRACKING_URI": lab.uri, "STLAB_TRITON_URL": server.grpc_url}
    asked = ["commanded", "--alias", "prod", "--repository", "repository", "--json"]
    refused = command(lab.folder, *asked, verb="rollback", **settings)
    assert (refused.code, refused.result["error"]["kind"]) == (2, "usage")
    ran = command(lab.folder, *asked, "--allow-manual", verb="rollback", **settings)
    assert ran.code == 0, ran.stderr
    assert (ran.result["status"], ran.result["version"]) == ("rolled_back", 1)
    assert aliases(lab, "commanded") == {"staging": 2, "prod": 1, "archived": 2}
