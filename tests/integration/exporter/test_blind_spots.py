"""Models whose example hides something: never served with wrong answers to what it hides."""

from __future__ import annotations

import pytest

from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture
from tests.support.zoo_exports import (
    assert_refused,
    assert_served,
    build_in_this_process,
    exported,
)
from tests.zoo.blind_spots import BLIND_SPOTS

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
    build_in_this_process(monkeypatch)
    (entry,) = (model for model in BLIND_SPOTS if model.name == name)
    result = exported(lab, server, entry)
    if result.error is not None:
        assert_refused(lab, entry, result)
        return
    if not entry.batched:
        assert (result.parity or {})["batching"] == "off"
    assert_served(server, entry)
