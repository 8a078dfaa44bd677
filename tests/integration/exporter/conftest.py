from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import fluent

from tests.integration.empty_registry import copy_empty_registry

from .registering import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    before = Path.cwd()
    os.chdir(folder)  # MLflow puts the artifacts of a SQLite registry below the working directory
    lab = Lab(folder)
    # What another registry's experiment was, which MLflow keeps for the whole process.
    fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    try:
        copy_empty_registry(folder)
        yield lab
    finally:
        os.chdir(before)
