"""The model zoo: each model is served with the registered model's answers, or refused with why."""

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
from tests.zoo.catalogue import ZOO, Model
from tests.zoo.modules import LENGTH_BRANCHES

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("entry", [*ZOO, *LENGTH_BRANCHES], ids=lambda entry: entry.name)
def test_served_or_refused(
    lab: RegistryFixture, server: TritonServer, entry: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_in_this_process(monkeypatch)
    result = exported(lab, server, entry)
    if entry.refused:
        assert_refused(lab, entry, result)
        return
    assert result.status == "promoted", result.error
    assert (result.parity or {})["batching"] == ("dynamic" if entry.batched else "off")
    assert_served(server, entry)
