"""Credentials go to the registry alone, whatever its tags, sources and answers name.

The registry's entries are a real SQLite store's; what it serves over HTTP, and the thief, are
servers on loopback that remember every request.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from exporter.errors import ConflictError
from exporter.registry import ExportRun, Registry, fetch_bundle
from exporter.registry.artifacts import download
from exporter.registry.errors import translate_errors
from exporter.registry.locations import check_location
from exporter.registry.transport import install
from tests.support.empty_registry import copy_empty_registry
from tests.support.listening import ARTIFACTS, Listener, listening, one_file
from tests.support.running import command

TOKEN = "the-registrys-own-token"


@dataclass
class Scene:
    """A registry that is asked over HTTP, its entries, and somebody who wants its token."""

    own: Listener
    thief: Listener
    client: MlflowClient
    folder: Path
    made: int = 0

    @property
    def registry(self) -> Registry:
        return Registry(self.own.url, self.client)

    def fetch(self, address: str) -> str:
        """Follow an address, and return what was found there."""
        self.made += 1
        folder = download(self.registry, address, self.folder / str(self.made), "it", "look")
        return (folder / "kept").read_text()

    def version(self, name: str, source: str) -> None:
        """Register a version whose source a hostile registry names."""
        self.client.create_registered_model(name)
        self.client.create_model_version(name, source="/nowhere")
        with sqlite3.connect(self.folder.parent / "mlflow.db") as entries:
            entries.execute(
                "UPDATE model_versions SET source = ?1, storage_location = ?1 WHERE name = ?2",
                (source, name),
            )
        entries.close()

    def refused(self, address: str) -> ConflictError:
        """Follow an address that must not be, as every kind of tag and source may name it."""
        self.made += 1
        name, folder = f"net-{self.made}", self.folder / str(self.made)
        self.version(name, address)
        with pytest.raises(ConflictError) as tag:
            fetch_bundle(self.registry, name, 1, uri=address, sha256="0" * 64, folder=folder)
        for further in (lambda: self.registry.pull(name, 1, folder),
                        lambda: self.fetch(f"models:/{name}/1")):  # fmt: skip
            with pytest.raises(ConflictError) as source:
                further()
            assert (source.value.kind, source.value.exit_code) == ("address", 5), address
        assert tag.value.kind == "address"
        assert self.thief.requests == []
        assert not [path for path in folder.rglob("*") if path.is_file()]
        return tag.value


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    install()
    with listening() as own, listening() as thief:
        own.answer = thief.answer = one_file
        copy_empty_registry(tmp_path)
        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
        yield Scene(own, thief, client, tmp_path / "fetched")


def test_only_the_registry_is_followed(scene: Scene) -> None:
    own, thief, path = scene.own, scene.thief, f"{ARTIFACTS}/models/net"
    for address in (
        "mlflow-artifacts:/models/net",
        "MLFLOW-ARTIFACTS:/models/net",
        f"mlflow-artifacts://127.0.0.1:{own.port}/models/net",
        f"{own.url}{path}",
        f"HTTP://127.0.0.1:{own.port}{path}",
        "mlflow-artifacts:/1/abc/artifacts/my model",
        f"{own.url}{ARTIFACTS}/1/abc/artifacts/my model",
    ):
        own.forget()
        assert scene.fetch(address) == "kept", address
        assert set(own.credentials) == {f"Bearer {TOKEN}"}
    for address in (
        f"{thief.url}{path}",
        f"HTTP://127.0.0.1:{thief.port}{path}",
        f"http://localhost:{thief.port}{path}",
        f"mlflow-artifacts://127.0.0.1:{thief.port}/models/net",
        f"Mlflow-Artifacts://127.0.0.1:{thief.port}/models/net",
        # Who is the host? Not what comes before the last @, nor what a parser trims.
        f"http://127.0.0.1:{own.port}@127.0.0.1:{thief.port}{path}",
        f"http://joe:{TOKEN}@127.0.0.1:{thief.port}{path}",
        f"http://joe@127.0.0.1:{own.port}{path}",
        f"http://127.0.0.1:{thief.port}\\@127.0.0.1:{own.port}{path}",
        f"http://127.0.0.1:{thief.port}#@127.0.0.1:{own.port}{path}",
        f"http://127.0.0.1:{thief.port}?@127.0.0.1:{own.port}{path}",
        f"ht\ntp://127.0.0.1:{thief.port}{path}",
        f" http://127.0.0.1:{thief.port}{path}",
        f"http://127.0.0.1:{thief.port} @127.0.0.1:{own.port}{path}",
        f"http://127.0.0.1:{own.port} @127.0.0.1:{thief.port}{path}",
        f"http://127.0.0.1:{thief.port} {path}",
        f"http://127.0.0.1.:{own.port}{path}",
        f"http://[::1]:{own.port}{path}",
        f"http://[::ffff:127.0.0.1]:{thief.port}{path}",
        f"http://2130706433:{thief.port}{path}",
        f"http://127.0.0.1{path}",
        f"https://127.0.0.1:{own.port}{path}",
        f"//127.0.0.1:{thief.port}{path}",
        f"{own.url}/api/2.0/mlflow/runs/get",
        "mlflow-artifacts:/../../2.0/mlflow/users/delete",
        "mlflow-artifacts:/%2e%2e/%2e%2e/mlflow",
        f"ftp://127.0.0.1:{thief.port}/x",
        f"sftp://127.0.0.1:{thief.port}/x",
        f"hdfs://127.0.0.1:{thief.port}/x",
        f"r2://bucket@127.0.0.1:{thief.port}/x",
        f"abfss://files@127.0.0.1:{thief.port}/x",
        "abfss://files@account.thief.example/x",
        "s3://bucket-of-nobody/x",
        f"s3://127.0.0.1:{thief.port}/x",
        "dbfs://profile@databricks/x",
        "runs://profile@databricks/0123/x",
        "unknown:/x",
        # A registry on another machine names no file of this one.
        "/etc/hostname",
        "file:///etc/hostname",
        "FILE:/etc/hostname",
        "file://localhost/etc/hostname",
        "../..",
    ):
        own.forget()
        error = scene.refused(address)
        assert own.credentials == [], address
        assert TOKEN not in f"{error.message}{error.hint}"


def test_what_the_registry_says_of_its_runs_and_models_is_checked_as_well(scene: Scene) -> None:
    """Somebody who may create an experiment chooses where its artifacts are."""
    client, thief = scene.client, f"{scene.thief.url}{ARTIFACTS}/x"
    theirs = client.create_experiment("theirs", artifact_location=thief)
    here = client.create_experiment("here", artifact_location=str(scene.folder / "secret"))
    for experiment in (theirs, here):
        run = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment).model_id
        scene.refused(f"runs:/{run}/bundle")
        scene.refused(f"models:/{logged}")
        scene.refused(f"models:/{logged}/deep")
    scene.version("first", thief)
    client.set_registered_model_alias("first", "prod", "1")
    scene.refused("models:/first@prod/x")
    scene.version("circle", "models:/circle/1")
    scene.refused("models:/circle/1")
    ours = client.create_experiment("ours", artifact_location="mlflow-artifacts:/7")
    run = client.create_run(ours).info.run_id
    assert scene.fetch(f"runs:/{run}/bundle") == "kept"
    assert scene.fetch(f"models:/{client.create_logged_model(ours).model_id}") == "kept"


def test_a_server_on_this_machine_may_keep_artifacts_in_the_folder_it_was_started_with(
    scene: Scene,
) -> None:
    """`mlflow server --no-serve-artifacts`, or with a folder as `--default-artifact-root`."""
    root = Path(scene.client.get_experiment("0").artifact_location.removeprefix("file://")).parent
    model = root / "0" / "models" / "net"
    model.mkdir(parents=True)
    (model / "kept").write_text("kept")
    assert scene.fetch(str(model)) == scene.fetch(model.as_uri()) == "kept"
    (root / "link").symlink_to("/etc")
    for address in (f"{root}-too/x", f"{root}/../mlflow.db", f"{root}/link", f"file:{root}/link"):
        scene.refused(address)
    for uri, allowed in (("http://127.1.2.3:5000", True), ("http://[::1]:5000", True),
                         ("https://localhost", True), ("http://0.0.0.0:5000", True),
                         ("http://[::]:5000", True), ("http://127.thief.example", False),
                         ("http://mlflow.example", False), ("http://10.0.0.1", False)):  # fmt: skip
        registry = Registry(uri, scene.client)
        if allowed:
            assert check_location(registry, str(model), "it") == model.as_uri()
        else:
            with pytest.raises(ConflictError):
                check_location(registry, str(model), "it")
    # Without an experiment 0, which `mlflow gc` removes, nothing says which folder that is.
    with sqlite3.connect(scene.folder.parent / "mlflow.db") as entries:
        entries.execute("DELETE FROM experiments WHERE experiment_id = 0")
    entries.close()
    error = scene.refused(str(model))
    assert str(model) in error.message


@pytest.mark.parametrize("kind", ["thief", "folder"])
def test_nothing_is_sent_to_where_an_experiment_says(scene: Scene, kind: str) -> None:
    """An experiment that was there before ours decides where our bundles go."""
    folder = scene.folder / "of-this-machine"
    location = f"{scene.thief.url}{ARTIFACTS}/x" if kind == "thief" else str(folder)
    experiment = scene.client.create_experiment("stlab-export", artifact_location=location)
    with pytest.raises(ConflictError) as refused:
        ExportRun.begin(scene.registry, "net-1-dev", {"model": "net"})
    assert (refused.value.kind, scene.thief.requests) == ("address", [])
    (run,) = scene.client.search_runs([experiment])
    assert run.info.status == "FAILED"
    assert not folder.exists()


def test_stores_that_the_registry_or_the_operator_names(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:

    def followed(address: str) -> str:
        return check_location(scene.registry, address, "it")

    for root in ("s3://team/mlflow", "gs://team/x", "wasbs://files@team.blob.core.windows.net/x",
                 "abfss://files@team.dfs.core.windows.net/x"):  # fmt: skip
        with pytest.raises(ConflictError):
            followed(f"{root}/7")
        scene.client.create_experiment(root.partition(":")[0], artifact_location=root)
        assert followed(f"{root}/7") == f"{root}/7"
        assert followed(f"{root}/7/my model") == f"{root}/7/my model"
    # What an experiment names is no host to connect to.
    scene.client.create_experiment("theirs", artifact_location="abfss://files@thief.example/x")
    with pytest.raises(ConflictError):
        followed("abfss://files@thief.example/x/7")
    mine = scene.folder / "mine"
    stores = f"{scene.thief.url} {mine} s3://other/models sftp://host/models"
    monkeypatch.setenv("STLAB_ARTIFACT_STORES", stores)
    assert scene.fetch(f"{scene.thief.url}{ARTIFACTS}/x") == "kept"
    for address in (f"{mine}/7", "s3://other/models/7", "sftp://host/models/7"):
        assert followed(address).endswith("/7")
    for address in (f"{mine}-too/7", f"{mine}/../7", "s3://other/models-too/7", "sftp://host/7",
                    "sftp://host/models/../7", "s3://others/models/7"):  # fmt: skip
        with pytest.raises(ConflictError):
            followed(address)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(scene: Scene, status: int) -> None:
    own, thief = scene.own, scene.thief
    elsewhere: Any = lambda _method, path: (status, {"Location": f"{thief.url}{path}"}, b"")  # noqa: E731
    own.answer = elsewhere
    with pytest.raises(ConflictError) as listed:
        scene.fetch("mlflow-artifacts:/models/net")
    own.answer = lambda method, path: (one_file if "?" in path else elsewhere)(method, path)
    with pytest.raises(ConflictError) as copied:
        scene.fetch("mlflow-artifacts:/models/net")
    for error in (listed.value, copied.value):
        assert (error.kind, f"127.0.0.1:{thief.port}" in error.message) == ("address", True)
    # The registry's own interface, from the first request of a command on.
    own.answer = lambda method, path: (
        (200, {}, b"OK") if path == "/health" else elsewhere(method, path)
    )
    registry = Registry.connect(own.url)
    for call in (registry.models, lambda: registry.tag("net", 1, {"stlab.parity": "passed"})):
        with pytest.raises(ConflictError):
            call()
    # Behind single sign-on what needs no token may be redirected: the registry answers.
    own.answer = elsewhere
    with pytest.raises(ConflictError):
        Registry.connect(own.url).models()
    own.answer = lambda method, path: (
        elsewhere(method, path) if path == "/health" else (200, {}, b"{}")
    )
    assert Registry.connect(own.url).models() == []
    assert (thief.requests, thief.credentials) == ([], [])


def test_no_request_leaves_for_another_host_even_where_mlflow_would(scene: Scene) -> None:
    """The last line: the session itself, whoever made the address."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(f"{scene.thief.url}{ARTIFACTS}/x")
    with pytest.raises(ConflictError), translate_errors(scene.own.url):
        store.list_artifacts()
    assert scene.thief.requests == []
    # And outside of what is exchanged with a registry, MLflow is left alone.
    assert [entry.path for entry in store.list_artifacts()] == ["kept"]


def test_the_command_says_where_it_was_led(scene: Scene) -> None:
    """`stlab pull` of an alias whose record names the thief: exit 5, and its address."""
    thief = f"http://joe:s3cret-of-joe@127.0.0.1:{scene.thief.port}{ARTIFACTS}/x"
    record = {"at": "2026-01-01", "from": None, "by": "CI", "bundle": "0" * 64, "uri": thief}
    scene.version("net", thief)
    for key, value in (("stlab.parity", "passed"), ("stlab.promoted.prod", json.dumps(record))):
        scene.client.set_model_version_tag("net", "1", key, value)
    scene.client.set_registered_model_alias("net", "prod", "1")
    folder = scene.folder.parent
    asked = ["net", "--alias", "prod", "--json"]
    uri = f"sqlite:///{folder}/mlflow.db"
    ran = command(folder, *asked, verb="pull", MLFLOW_TRACKING_URI=uri)
    assert ran.code == 5, ran.stderr
    error = ran.result["error"]
    assert (error["kind"], f"127.0.0.1:{scene.thief.port}" in error["message"]) == ("address", True)
    assert "s3cret" not in ran.stdout + ran.stderr
    assert scene.thief.requests == []
