"""What holds for every test."""

from __future__ import annotations

import gc

import pytest

from exporter.system.environment import raise_gc_thresholds
from tests.support.databases import commit_to_memory

# As the commands do: MLflow and torch make a million objects that all stay.
raise_gc_thresholds()
commit_to_memory()


@pytest.fixture(autouse=True, scope="module")
def _older_objects_stay() -> None:
    """A full collection of what earlier modules made and imported takes seconds."""
    gc.freeze()
