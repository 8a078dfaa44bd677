"""The model zoo: each model is served with the registered model's answers, or refused with why."""

from __future__ import annotations

import mlflow
import pytest

from exporter.build.builder import build
from exporter.commands.export import pipeline
from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture
from tests.zoo.catalogue import ROWS, ZOO, Model
from tests.zoo.comparing import check_rows
from tests.zoo.modules import LENGTH_BRANCHES

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("entry", [*ZOO, *LENGTH_BRANCHES], ids=lambda entry: entry.name)
def test_served_or_refused(
    lab: RegistryFixture, server: TritonServer, entry: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, which trusts the zoo: that pickles are kept apart is tested by itself.
    monkeypatch.setattr(pipeline, "build_isolated", build)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    mlflow.set_tracking_uri(lab.uri)
    entry.register()
    result = lab.export(
        entry.name,
        allow_pickle=True,
        prove_on=server.grpc_url,
        triton_urls=(server.grpc_url,),
        max_batch_size=16,
    )
    if entry.refused:
        assert result.exit_code == 3
        assert entry.refused in (result.error or {})["message"]
        assert lab.alias(entry.name) is None
        assert not (lab.folder / "repository" / entry.name).exists(), "nothing is published"
        return
    assert result.status == "promoted", result.error
    assert (result.parity or {})["batching"] == ("dynamic" if entry.batched else "off")
    with server.client() as client:
        model = client.model(entry.name)
        for count in ROWS:
            check_rows(entry, count, lambda inputs: list(model.infer(inputs).values()))
        client.repository.unload(entry.name)
