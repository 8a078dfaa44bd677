"""Exports from a registry behind ``mlflow server``, with the artifacts proxied by it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.mlflow_server import Served, mlflow_server
from tests.support.models import ROWS, Layers, times
from tests.support.running import command

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with mlflow_server(tmp_path_factory.mktemp("served")) as served:
        yield served


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
