"""Exports models of the zoo in this process, and checks what is served."""

from __future__ import annotations

import mlflow
import pytest

from exporter.build.builder import build
from exporter.commands.export import pipeline
from exporter.commands.export.result import ExportResult
from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture
from tests.zoo.catalogue import ROWS, Model
from tests.zoo.comparing import check_rows

__all__ = ["assert_refused", "assert_served", "build_in_this_process", "exported"]


def build_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load pickles here, which trusts the zoo: that they are kept apart is tested by itself."""
    monkeypatch.setattr(pipeline, "build_isolated", build)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")


def exported(lab: RegistryFixture, server: TritonServer, entry: Model) -> ExportResult:
    """Register a model as its author would, and export it to a server."""
    mlflow.set_tracking_uri(lab.uri)
    entry.register()
    return lab.export(
        entry.name,
        allow_pickle=True,
        prove_on=server.grpc_url,
        triton_urls=(server.grpc_url,),
        max_batch_size=16,
    )


def assert_refused(lab: RegistryFixture, entry: Model, result: ExportResult) -> None:
    """Assert that it was refused for its reason, and nothing was left."""
    assert result.exit_code == 3, result.error
    assert entry.refused in (result.error or {})["message"]
    assert lab.alias(entry.name) is None
    assert not (lab.folder / "repository" / entry.name).exists(), "nothing is published"


def assert_served(server: TritonServer, entry: Model) -> None:
    """Assert that a server answers every number of rows as the model does."""
    with server.client() as client:
        model = client.model(entry.name)
        for count in ROWS:
            check_rows(entry, count, lambda inputs: list(model.infer(inputs).values()))
        client.repository.unload(entry.name)
