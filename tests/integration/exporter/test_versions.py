"""Which version an alias takes, what is kept of an export, and what is shared between aliases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporter.commands.export.result import ExportResult
from exporter.errors import NotFoundError
from exporter.registry import Registry
from exporter.repository import LocalRepository
from exporter.triton.model_config import parse
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "CI_PIPELINE_URL", "CI_JOB_URL", "BUILD_URL", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def register(lab: RegistryFixture, name: str, *factors: float) -> None:
    for factor in factors:
        lab.register_onnx(name, times(factor), example=ROWS)


def done(result: ExportResult, status: str = "promoted") -> ExportResult:
    assert result.status == status, result.error
    return result


def failed(result: ExportResult, code: int, words: str) -> None:
    assert result.status == "failed"
    assert result.error is not None
    assert (result.exit_code, words in result.error["message"]) == (code, True), result.error


def served(lab: RegistryFixture, name: str) -> list[int]:
    text = (lab.folder / "repository" / name / "config.pbtxt").read_text()
    return list(parse(text, where="it").version_policy.specific.versions)


def test_the_version_that_an_alias_takes(lab: RegistryFixture) -> None:
    register(lab, "taken", 1.0, 2.0, 3.0)

    def chosen(alias: str, **options: object) -> int | None:
        return done(lab.export("taken", alias, dry_run=True, **options), "planned").version

    assert (chosen("dev"), chosen("staging")) == (3, 3)
    lab.client.set_registered_model_alias("taken", "dev", "2")
    assert (chosen("dev"), chosen("staging")) == (3, 2)
    assert (chosen("dev", version=1), chosen("staging", version=1)) == (1, 1)


def test_versions_are_numbers_and_not_text(lab: RegistryFixture) -> None:
    register(lab, "ten", *range(1, 11))
    assert lab.export("ten", "dev", dry_run=True).version == 10


def test_a_model_without_versions(lab: RegistryFixture) -> None:
    lab.client.create_registered_model("hollow")
    failed(lab.export("hollow", "dev"), 4, "has no versions")


def test_prod_takes_what_staging_names_and_nothing_else(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(lab, "sold", 1.0, 2.0)
    failed(lab.export("sold", "prod", allow_manual=True), 5, "staging")
    staged = done(lab.export("sold", "staging", version=1))
    failed(lab.export("sold", "prod"), 2, "by CI only")
    failed(lab.export("sold", "prod", version=2, allow_manual=True), 5, "not version 2")
    assert lab.alias("sold", "prod") is None

    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("CI_PIPELINE_URL", "pipeline/42")
    sold = done(lab.export("sold", "prod", repository=str(lab.folder / "production")))
    assert (sold.version, sold.previous, lab.alias("sold", "prod")) == (1, None, 1)
    assert staged.bundle is not None
    assert sold.bundle == {**staged.bundle, "reused": True}
    assert "convert" not in sold.seconds
    assert "prove" in sold.seconds
    record = json.loads(lab.client.get_model_version("sold", "1").tags["stlab.promoted.prod"])
    assert record["by"] == "pipeline/42"


def test_prod_by_hand_is_on_record(lab: RegistryFixture) -> None:
    register(lab, "by-hand", 1.0)
    done(lab.export("by-hand", "staging"))
    done(lab.export("by-hand", "prod", allow_manual=True))
    tags = lab.client.get_model_version("by-hand", "1").tags
    record = json.loads(tags["stlab.promoted.prod"])
    assert record["by"] == "manual"
    assert set(record) == {"at", "from", "by", "bundle", "uri", "repository"}


def test_prod_takes_staging_s_bundle_whatever_options_made_it(lab: RegistryFixture) -> None:
    register(lab, "optioned", 1.0)
    staged = done(lab.export("optioned", "staging", batching="off"))
    sold = done(lab.export("optioned", "prod", allow_manual=True))
    assert staged.bundle is not None
    assert sold.bundle == {**staged.bundle, "reused": True}


def test_prod_does_not_take_what_was_never_proven(lab: RegistryFixture) -> None:
    register(lab, "unproven", 1.0)
    lab.client.set_registered_model_alias("unproven", "staging", "1")
    failed(
        lab.export("unproven", "prod", allow_manual=True),
        5,
        "has no passing evidence for 'staging'",
    )
    assert lab.alias("unproven", "prod") is None


@pytest.mark.parametrize("name", ["model.onnx", "config.pbtxt", "manifest.json"])
def test_a_tampered_bundle_does_not_reach_prod(lab: RegistryFixture, name: str) -> None:
    model = f"tampered-{name}"
    register(lab, model, 1.0)
    done(lab.export(model, "staging"))
    tags = lab.client.get_model_version(model, "1").tags
    file = bundle_folder(lab, tags["stlab.export.run_id"]) / name
    content = bytearray(file.read_bytes())
    # One letter of a file of text stays text.
    at = content.index(b"onnx") if b"onnx" in content else len(content) // 2
    content[at] ^= 1
    file.write_bytes(content)
    before = lab.repository_bytes()
    failed(lab.export(model, "prod", allow_manual=True), 5, name)
    assert (lab.alias(model, "prod"), lab.repository_bytes()) == (None, before)


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_a_bundle_that_is_lost_is_made_again(lab: RegistryFixture, harm: str) -> None:
    name = f"lost-{harm}"
    register(lab, name, 1.0)
    first = done(lab.export(name, "dev"))
    kept = bundle_folder(lab, lab.client.get_model_version(name, "1").tags["stlab.export.run_id"])
    if harm == "removed":
        shutil.rmtree(kept)
    else:
        manifest = kept / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"fp32"', b'"fp33"'))
    assert first.bundle is not None
    again = done(lab.export(name, "staging"))
    assert again.bundle == first.bundle


def bundle_folder(lab: RegistryFixture, run_id: str) -> Path:
    uri = lab.client.get_run(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://")) / "bundle"


def test_a_second_run_finds_nothing_to_do(lab: RegistryFixture) -> None:
    register(lab, "still", 2.0)
    first = done(lab.export("still"))
    before, tags = lab.repository_bytes(), dict(lab.client.get_model_version("still", "1").tags)
    second = done(lab.export("still"), "unchanged")
    assert set(second.seconds) == {"resolve", "total"}
    assert first.bundle is not None
    assert second.bundle == {**first.bundle, "reused": True}
    assert (second.version, second.previous, second.served_version) == (1, 1, 1)
    assert lab.repository_bytes() == before
    assert lab.client.get_model_version("still", "1").tags == tags


def test_what_was_harmed_is_mended(lab: RegistryFixture) -> None:
    register(lab, "harmed", 2.0)
    done(lab.export("harmed"))
    before = lab.repository_bytes()
    shutil.rmtree(lab.folder / "repository" / "harmed")
    done(lab.export("harmed"))
    assert lab.repository_bytes() == before
    config = lab.folder / "repository" / "harmed" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: 1"))
    done(lab.export("harmed"))
    assert lab.repository_bytes() == before


def test_what_an_export_leaves_in_mlflow(lab: RegistryFixture) -> None:
    register(lab, "traced", 2.0)
    result = done(lab.export("traced", "dev"))
    done(lab.export("traced", "staging"))
    assert result.bundle is not None
    assert result.parity is not None
    tags = lab.client.get_model_version("traced", "1").tags
    run_id = tags["stlab.export.run_id"]
    assert tags["stlab.bundle.sha256"] == result.bundle["sha256"]
    assert tags["stlab.bundle.uri"] == f"runs:/{run_id}/bundle"
    assert tags["stlab.bundle.format"] == "onnx"
    assert tags["stlab.parity"] == "passed"
    assert float(tags["stlab.parity.margin"]) == pytest.approx(result.parity["margin"], abs=1e-5)
    for alias in ("dev", "staging"):
        record = json.loads(tags[f"stlab.promoted.{alias}"])
        assert record["from"] is None
        assert record["at"].startswith("20")
    run = lab.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert lab.client.get_experiment(run.info.experiment_id).name == "stlab-export"
    assert run.data.params["model"] == "traced"
    assert run.data.params["version"] == "1"
    assert run.data.params["alias"] == "dev"
    assert run.data.metrics["parity_margin"] == pytest.approx(result.parity["margin"], abs=1e-5)
    assert {"convert_seconds", "prove_seconds", "total_seconds", "bundle_bytes"} <= set(
        run.data.metrics
    )
    assert {e.path for e in lab.client.list_artifacts(run_id)} == {"bundle", "report.html"}
    names = {e.path.removeprefix("bundle/") for e in lab.client.list_artifacts(run_id, "bundle")}
    assert names == {
        "config.pbtxt", "manifest.json", "model.onnx", "report.json", "samples.npz", "warmup",
    }  # fmt: skip
    page = (bundle_folder(lab, run_id).parent / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert result.bundle["sha256"][:12] in page


def test_expect_current(lab: RegistryFixture) -> None:
    register(lab, "expected", 1.0, 2.0)
    failed(lab.export("expected", "dev", expect_current=1), 5, "not 1 as expected")
    done(lab.export("expected", "dev", version=1, expect_current=0))
    failed(lab.export("expected", "dev", expect_current=0), 5, "points to version 1")
    assert lab.alias("expected", "dev") == 1
    done(lab.export("expected", "dev", expect_current=1))
    assert lab.alias("expected", "dev") == 2


def test_two_aliases_of_one_repository_are_both_served(lab: RegistryFixture) -> None:
    lab.register_onnx("both", times(1.0), example=ROWS)
    lab.register_onnx("both", times(2.0), example=ROWS + 1)  # another example, other warm-up data
    done(lab.export("both", "staging", version=1))
    done(lab.export("both", "dev", version=2))
    assert served(lab, "both") == [1, 2]
    done(lab.export("both", "staging", version=1), "unchanged")
    done(lab.export("both", "dev", version=2), "unchanged")
    done(lab.export("both", "staging", version=2))
    assert served(lab, "both") == [2]
    done(lab.export("both", "dev", version=2), "unchanged")


def test_two_aliases_whose_interfaces_differ(lab: RegistryFixture) -> None:
    lab.register_onnx("wider", times(1.0), example=ROWS)
    lab.register_onnx("wider", times(1.0, width=4), example=ROWS[:, :4])
    done(lab.export("wider", "staging", version=1))
    before = lab.repository_bytes()
    failed(lab.export("wider", "dev", version=2), 5, "its interface differs from that of version 2")
    assert (lab.alias("wider", "dev"), lab.repository_bytes()) == (None, before)
    done(lab.export("wider", "staging", version=2))
    assert served(lab, "wider") == [2]


def test_an_alias_that_somebody_else_moved_meanwhile(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(lab, "raced", 1.0, 2.0, 3.0)
    done(lab.export("raced", version=1))
    before = lab.repository_bytes()
    activate = LocalRepository.activate

    def meanwhile(repository: LocalRepository, *arguments: object) -> object:
        lab.client.set_registered_model_alias("raced", "staging", "3")
        return activate(repository, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalRepository, "activate", meanwhile)
    failed(
        lab.export("raced", version=2), 5, "moved from version 1 to version 3 by another command"
    )
    assert (lab.alias("raced"), lab.repository_bytes()) == (3, before)
    run_id = lab.client.get_model_version("raced", "2").tags["stlab.export.run_id"]
    assert lab.client.get_run(run_id).info.status == "FAILED"


@pytest.mark.parametrize("first", [True, False])
def test_a_registry_that_fails_halfway_through_a_promotion(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    name = f"halfway-{first}"
    register(lab, name, 1.0, 2.0)
    if not first:
        done(lab.export(name, version=1))
    before, named = lab.repository_bytes(), lab.alias(name)
    set_tag = type(lab.client).set_model_version_tag

    def refuse(client: object, model: str, version: str, key: str, value: str) -> None:
        if key.startswith("stlab.promoted"):
            raise ConnectionError("the registry went away")
        set_tag(client, model, version, key, value)

    monkeypatch.setattr(type(lab.client), "set_model_version_tag", refuse)
    failed(lab.export(name, version=2), 6, "went away")
    assert (lab.alias(name), lab.repository_bytes()) == (named, before)
    monkeypatch.undo()
    done(lab.export(name, version=2))


def test_what_an_alias_names_in_one_question(lab: RegistryFixture) -> None:
    version = lab.register_onnx("asked-for", times(1.0), example=ROWS)
    lab.client.set_registered_model_alias("asked-for", "dev", str(version))
    lab.client.set_model_version_tag("asked-for", str(version), "colour", "blue")
    registry = Registry.connect(lab.uri)
    assert registry.version_by_alias("asked-for", "dev") == (version, {"colour": "blue"})
    for model, alias in (("asked-for", "prod"), ("nobody", "dev")):
        with pytest.raises(NotFoundError, match=f"'{model}' has no alias '{alias}'"):
            registry.version_by_alias(model, alias)
