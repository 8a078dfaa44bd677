"""What an export believes of what it finds, and what it leaves when it is let down midway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import onnx
import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from exporter.commands.export import pipeline
from exporter.commands.export.reuse import ReusableExport
from exporter.errors import UnavailableError
from exporter.registry import Registry
from exporter.repository import LocalRepository
from exporter.rollout import rollout
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import STARTED, command
from triton_client import errors

pytestmark = pytest.mark.triton


def versions(lab: RegistryFixture, name: str, *factors: float) -> None:
    for factor in factors:
        lab.register_onnx(name, times(factor), example=ROWS)


def live_config(lab: RegistryFixture, name: str) -> str:
    return (lab.folder / "repository" / name / "config.pbtxt").read_text()


def served(lab: RegistryFixture, name: str) -> tuple[int, ...]:
    return LocalRepository(lab.folder / "repository").served_versions(name)


def external(lab: RegistryFixture, name: str, location: str) -> Path:
    """Move the weights of a registered ONNX model into a file of its author's choice."""
    folder = lab.artifact(name)
    model = onnx.load(folder / "model.onnx")
    (weight,) = model.graph.initializer
    (folder / location).write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    onnx.save(model, folder / "model.onnx")
    return folder / location


@pytest.mark.parametrize("location", ["libtriton_onnxruntime.so", "report.json", "model.py"])
def test_external_data_gets_a_name_that_no_server_runs(lab: RegistryFixture, location: str) -> None:
    name = location.partition(".")[0].replace("_", "-")
    versions(lab, name, 2.0)
    external(lab, name, location)
    result = lab.export(name)
    assert result.status == "promoted", result.error
    folder = lab.folder / "repository" / name / "1"
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"model.onnx", "model.onnx.data"} <= files
    assert (location in files) is (location == "report.json")
    assert lab.export(name).status == "unchanged"


def test_evidence_of_another_model_counts_for_nothing(lab: RegistryFixture) -> None:
    versions(lab, "theirs", 1.0, 2.0)
    assert lab.export("theirs", version=1, alias="dev").status == "promoted"
    assert lab.export("theirs", version=2).status == "promoted"
    before = live_config(lab, "theirs")
    lab.client.copy_model_version("models:/theirs/1", "ours")  # copies the tags as well
    assert lab.client.get_model_version("ours", "1").tags["stlab.parity"] == "passed"
    result = lab.export("ours")
    assert (result.status, (result.bundle or {})["reused"]) == ("promoted", False)
    assert served(lab, "ours") == (1,)
    assert live_config(lab, "theirs") == before


def test_prod_takes_what_staging_took(lab: RegistryFixture) -> None:
    versions(lab, "ladder", 1.0)
    staged = lab.export("ladder")
    # The same version again, otherwise: its tags now name another bundle.
    other = lab.export("ladder", "dev", repository=str(lab.folder / "dev"), max_batch_size=4)
    assert (staged.error, other.error) == (None, None)
    assert (staged.bundle or {})["sha256"] != (other.bundle or {})["sha256"]
    promoted = lab.export("ladder", "prod", allow_manual=True)
    assert promoted.status == "promoted", promoted.error
    assert (promoted.bundle or {})["sha256"] == (staged.bundle or {})["sha256"]


def test_torn_tags_are_seen(lab: RegistryFixture) -> None:
    versions(lab, "torn", 1.0)
    lab.export("torn")
    first = dict(lab.client.get_model_version("torn", "1").tags)
    lab.export("torn", "dev", repository=str(lab.folder / "dev"), max_batch_size=4)
    # As a run leaves them that was killed between one tag and the next.
    lab.client.set_model_version_tag(
        "torn", "1", "stlab.bundle.settings", first["stlab.bundle.settings"]
    )
    result = lab.export("torn", repository=str(lab.folder / "elsewhere"))
    assert (result.bundle or {})["sha256"] == first["stlab.bundle.sha256"]


def after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, then: Callable[[], None]) -> None:
    """Do something once, right after a call has returned."""
    original = getattr(owner, name)
    done = []

    def call(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        if not done:
            done.append(True)
            then()
        return result

    monkeypatch.setattr(owner, name, call)


def test_aliases_that_move_during_a_proof_keep_what_they_name(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(lab, "raced", 1.0, 2.0, 3.0)
    lab.export("raced", version=1)
    lab.export("raced", "prod", allow_manual=True)
    lab.export("raced", version=2)

    def promote() -> None:
        assert lab.export("raced", "prod", allow_manual=True).version == 2

    after(monkeypatch, ReusableExport, "find_up_to_date", promote)
    assert lab.export("raced", version=3).status == "promoted"
    assert (lab.alias("raced"), lab.alias("raced", "prod")) == (3, 2)
    assert served(lab, "raced") == (2, 3)


def gone(*_: Any, **__: Any) -> None:
    raise ConnectionError("the registry is gone")


def test_a_registry_that_goes_after_the_alias_moved(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(lab, "read-back", 1.0, 2.0)
    lab.export("read-back", version=1)
    with monkeypatch.context() as patch:
        after(
            patch,
            mlflow.MlflowClient,
            "set_registered_model_alias",
            lambda: after(
                patch,
                mlflow.MlflowClient,
                "set_model_version_tag",
                lambda: patch.setattr(Registry, "aliases", gone),
            ),
        )
        result = lab.export("read-back", version=2)
    assert result.status == "promoted", result.error
    assert (lab.alias("read-back"), served(lab, "read-back")) == (2, (2,))


def test_a_registry_that_goes_while_the_alias_moves(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whether it was moved; here it was. What it may name stays served."""
    versions(lab, "midway", 1.0, 2.0)
    lab.export("midway", version=1)
    with monkeypatch.context() as patch:

        def cut_off() -> None:
            patch.setattr(Registry, "aliases", gone)
            gone()

        after(patch, mlflow.MlflowClient, "set_registered_model_alias", cut_off)
        result = lab.export("midway", version=2)
    assert result.error is not None
    assert (result.exit_code, result.error["kind"]) == (6, "outcome_unknown")
    assert (lab.alias("midway"), served(lab, "midway")) == (2, (2,))
    # What of it was written is not known either: the next run leaves a whole record.
    assert lab.export("midway", version=2).status == "promoted"
    assert lab.export("midway", version=2).status == "unchanged"


def test_no_room_to_undo(lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back takes no room; and where it fails, what the config names stays."""
    versions(lab, "no-room", 1.0, 2.0)
    lab.export("no-room", version=1)
    before = lab.repository_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.setattr("exporter.repository.local_repository.replace_file", full)
        raise UnavailableError("the server went away")

    monkeypatch.setattr(rollout, "verify", fail)
    monkeypatch.setattr(rollout, "reload", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "check_servers", lambda _: None)
    result = lab.export("no-room", version=2, triton_urls=("127.0.0.1:9",))
    assert result.exit_code == 6
    assert lab.repository_bytes() == before


def test_what_others_put_there_is_left_alone(lab: RegistryFixture) -> None:
    versions(lab, "hand-made", 1.0)
    folder = lab.folder / "repository" / "hand-made"
    (folder / "1").mkdir(parents=True)
    shutil.copy(lab.artifact("hand-made") / "model.onnx", folder / "1")
    (folder / "config.pbtxt").write_text('backend: "onnxruntime"')
    before = lab.repository_bytes()
    result = lab.export("hand-made")
    assert result.exit_code == 5
    assert lab.repository_bytes() == before
    shutil.rmtree(folder)


@pytest.mark.parametrize("option", ["--triton-url", "--prove-on"])
def test_an_address_that_is_none(lab: RegistryFixture, option: str) -> None:
    versions(lab, f"address{option}", 1.0)
    ran = command(
        lab.folder,
        *(f"address{option}", "--alias", "dev", "--repository", "nowhere", "--json"),
        *(option, "http://127.0.0.1:8001"),
        MLFLOW_TRACKING_URI=lab.uri,
    )
    assert (ran.code, ran.result["model"]) == (2, f"address{option}")
    assert option in ran.result["error"]["message"]
    assert not (lab.folder / "nowhere").exists()


def test_a_server_that_fails_in_the_middle_is_unavailable(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(lab, "dying", 1.0)

    def fail(*_: Any, **__: Any) -> None:
        raise errors.Unavailable("Socket closed")

    monkeypatch.setattr("exporter.proving.prove.check_outputs", fail)
    result = lab.export("dying")
    assert result.exit_code == 6
    assert lab.alias("dying") is None


def test_nothing_of_the_working_directory_is_imported(lab: RegistryFixture, tmp_path: Path) -> None:
    versions(lab, "shadowed", 1.0)
    for name in ("yaml", "onnx", "exporter"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from here')")
    ran = command(
        tmp_path,
        *("shadowed", "--alias", "dev", "--repository", str(lab.folder / "repository"), "--json"),
        program=STARTED,
        MLFLOW_TRACKING_URI=lab.uri,
    )
    assert ran.result["status"] == "promoted", ran.stderr


def test_the_model_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.system.environment import minimal_environment

    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "NVIDIA_API_KEY"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = minimal_environment()
    assert "s3cret" not in found.values()
    assert (found["OMP_NUM_THREADS"], found["PATH"]) == ("1", os.environ["PATH"])


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://127.0.0.1:9/db?user=joe&password=s3cret", "postgresql://127.0.0.1:9/db"),
        ("http://s3cret@127.0.0.1:9", "http://***@127.0.0.1:9"),
    ],
)
def test_secrets_in_a_registrys_address_are_not_told(tmp_path: Path, uri: str, shown: str) -> None:
    ran = command(tmp_path, "net", "--alias", "dev", "--json", MLFLOW_TRACKING_URI=uri)
    assert ran.code == 6
    assert "s3cret" not in ran.stdout + ran.stderr
    assert shown in ran.result["error"]["message"]


@pytest.mark.parametrize("uri", ["http://[::1", "http://127.0.0.1:port"])
def test_an_address_of_a_registry_that_is_none(tmp_path: Path, uri: str) -> None:
    ran = command(tmp_path, "net", "--alias", "dev", "--json", MLFLOW_TRACKING_URI=uri)
    assert (ran.code, ran.result["error"]["kind"]) == (2, "usage")


def test_a_run_that_could_not_be_kept_is_closed(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(lab, "unkept", 1.0)
    monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", gone)
    assert lab.export("unkept").exit_code == 6
    experiment = lab.client.get_experiment_by_name("stlab-export")
    runs = lab.client.search_runs([experiment.experiment_id], "params.model = 'unkept'")
    assert [run.info.status for run in runs] == ["FAILED"]


def test_a_second_signal_does_not_stop_the_undoing() -> None:
    program = (
        "import os, signal, time\n"
        "from exporter.cli.app import _interrupt_once\n"
        "_interrupt_once()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('undone')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "undone\n"
