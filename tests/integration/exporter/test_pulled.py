"""A repository is made anew of what the registry keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporter.commands.export.result import ExportResult
from exporter.commands.pull import PullRequest, pull
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command, files, small_disk
from tests.support.serving import factor, ready

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")


def pulled(lab: RegistryFixture, name: str, alias: str, folder: Path) -> ExportResult:
    return pull(PullRequest(name, alias, repository=str(folder), tracking_uri=lab.uri))


def staged(lab: RegistryFixture, name: str, *factors: float) -> None:
    """Register versions, and take the last one to staging."""
    for number in factors:
        lab.register_onnx(name, times(number), example=ROWS)
    assert lab.export(name, "staging").status == "promoted"


def known(lab: RegistryFixture, name: str) -> object:
    """Everything that the registry says of a model."""
    model = lab.client.get_registered_model(name)
    versions = lab.client.search_model_versions(f"name='{name}'")
    return model.aliases, {version.version: version.tags for version in versions}


def test_a_repository_is_made_anew(lab: RegistryFixture, tmp_path: Path) -> None:
    staged(lab, "anew", 2.0)
    assert lab.export("anew", "prod").status == "promoted"
    staged(lab, "anew", 3.0)
    before, folder = known(lab, "anew"), tmp_path / "models"
    for alias, version in (("prod", 1), ("staging", 2)):
        result = pulled(lab, "anew", alias, folder)
        assert (result.status, result.version, result.served_version) == (
            "pulled",
            version,
            version,
        )
        assert result.parity is not None
        assert result.parity["passed"] is True
    assert known(lab, "anew") == before
    assert files(folder / "anew") == files(lab.folder / "repository" / "anew")
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    with TritonServer.start(runtime, str(folder), models=["anew"]) as server:
        server.wait_live()
        assert ready(server, "anew") == [1, 2]
        assert factor(server, "anew") == 3.0
    assert pulled(lab, "anew", "prod", folder).status == "unchanged"


def test_a_moved_alias_is_followed(lab: RegistryFixture, tmp_path: Path) -> None:
    staged(lab, "followed", 2.0)
    assert pulled(lab, "followed", "staging", tmp_path).status == "pulled"
    staged(lab, "followed", 3.0)
    assert pulled(lab, "followed", "staging", tmp_path).version == 2
    config = (tmp_path / "followed" / "config.pbtxt").read_text()
    assert "versions: 2" in config
    assert "versions: 1" not in config


def test_what_is_not_proven_is_not_pulled(lab: RegistryFixture, tmp_path: Path) -> None:
    staged(lab, "unproven", 2.0)
    lab.client.set_registered_model_alias("unproven", "dev", "1")
    for name, alias, code, words in (
        ("unproven", "dev", 5, "version 1 of 'unproven' has no passing evidence"),
        ("unproven", "prod", 4, "points to no version"),
        ("nobody", "prod", 4, "nobody"),
    ):
        result = pulled(lab, name, alias, tmp_path)
        assert result.error is not None
        assert (result.exit_code, words in result.error["message"]) == (code, True), result.error
    assert files(tmp_path) == {}


def test_a_tampered_bundle_is_not_pulled(lab: RegistryFixture, tmp_path: Path) -> None:
    staged(lab, "spoilt", 2.0)
    run = lab.client.get_run(
        lab.client.get_model_version("spoilt", "1").tags["stlab.export.run_id"]
    )
    file = Path(run.info.artifact_uri.removeprefix("file://"), "bundle", "model.onnx")
    file.write_bytes(file.read_bytes() + b" ")
    result = pulled(lab, "spoilt", "staging", tmp_path)
    assert result.error is not None
    assert (result.exit_code, "model.onnx" in result.error["message"]) == (5, True), result.error
    assert files(tmp_path) == {}


def test_a_disk_that_is_too_small_is_not_a_bundle_that_is_missing(
    lab: RegistryFixture, tmp_path: Path
) -> None:
    lab.register_onnx("large", times(2.0, weights=250_000), example=ROWS)
    assert lab.export("large", "staging").status == "promoted"
    for kilobytes in (40, 500, 900):
        with small_disk(tmp_path / str(kilobytes), kilobytes) as disk:
            result = pulled(lab, "large", "staging", disk / "models")
            assert result.exit_code == 6, (kilobytes, result.error)
            assert result.error is not None
            assert "No space left on device" in result.error["message"]
            assert "Free the disk" in result.error["hint"]
            assert not (disk / "models").exists(), "no half of a bundle"


def test_a_bundle_that_is_missing_is_said_to_be(lab: RegistryFixture, tmp_path: Path) -> None:
    staged(lab, "missing", 2.0)
    tags = lab.client.get_model_version("missing", "1").tags
    run = lab.client.get_run(tags["stlab.export.run_id"])
    shutil.rmtree(Path(run.info.artifact_uri.removeprefix("file://"), "bundle"))
    result = pulled(lab, "missing", "staging", tmp_path)
    assert result.error is not None
    assert (result.exit_code, "is gone" in result.error["message"]) == (4, True), result.error


def test_a_limit_of_the_process_is_named(lab: RegistryFixture, tmp_path: Path) -> None:
    lab.register_onnx("limited", times(2.0, weights=2_000_000), example=ROWS)
    assert lab.export("limited", "staging").status == "promoted"
    limit = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from exporter.cli import main; main()"
    )
    asked = ["limited", "--alias", "staging", "--repository", str(tmp_path / "models"), "--json"]
    done = command(tmp_path, *asked, verb="pull", driver=limit, MLFLOW_TRACKING_URI=lab.uri)
    assert done.code == 6, done.stderr
    assert "File too large" in done.result["error"]["message"]


def test_the_command(lab: RegistryFixture, tmp_path: Path) -> None:
    staged(lab, "ordered", 2.0)
    asked = ["ordered", "--alias", "staging", "--json"]
    settings = {"MLFLOW_TRACKING_URI": lab.uri, "STLAB_MODEL_REPOSITORY": str(tmp_path / "models")}
    done = command(tmp_path, *asked, verb="pull", **settings)
    assert (done.code, done.result["status"]) == (0, "pulled"), done.stderr
    shutil.rmtree(tmp_path / "models")
    away = {**settings, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    failed = command(tmp_path, *asked, verb="pull", **away)
    assert (failed.code, json.loads(failed.stdout)["error"]["kind"]) == (6, "unavailable")
    assert not (tmp_path / "models").exists()
