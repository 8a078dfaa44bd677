"""Models whose example hides something: never served with wrong answers to what it hides."""

from __future__ import annotations

import mlflow
import pytest

from exporter.build.builder import build
from exporter.commands.export import pipeline
from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture
from tests.zoo.blind_spots import BLIND_SPOTS
from tests.zoo.catalogue import ROWS
from tests.zoo.comparing import check_rows

pytestmark = pytest.mark.triton

# The whole list takes minutes: `python -m benchmarks.zoo` exports it.
NAMES = (
    "tfidf-accents",
    "bigrams-stop-words",
    "ordinal-missing",
    "power-missing",
    "flipped-lstm",
    "items-of-users",
)


@pytest.mark.parametrize("name", NAMES)
def test_refused_or_right_on_what_the_example_hides(
    lab: RegistryFixture, server: TritonServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, which trusts the zoo: that pickles are kept apart is tested by itself.
    monkeypatch.setattr(pipeline, "build_isolated", build)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    mlflow.set_tracking_uri(lab.uri)
    (entry,) = (model for model in BLIND_SPOTS if model.name == name)
    entry.register()
    result = lab.export(
        name,
        allow_pickle=True,
        prove_on=server.grpc_url,
        triton_urls=(server.grpc_url,),
        max_batch_size=16,
    )
    if result.error is not None:
        assert result.exit_code == 3, result.error
        assert entry.refused in result.error["message"]
        assert lab.alias(name) is None
        assert not (lab.folder / "repository" / name).exists(), "nothing is published"
        return
    if not entry.batched:
        assert (result.parity or {})["batching"] == "off"
    with server.client() as client:
        model = client.model(name)
        for count in ROWS:
            check_rows(entry, count, lambda inputs: list(model.infer(inputs).values()))
        client.repository.unload(name)
