from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .registering import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    before = Path.cwd()
    os.chdir(folder)  # MLflow puts the artifacts of a SQLite registry below the working directory
    lab = Lab(folder)
    try:
        lab.client.search_registered_models()  # makes the database
        yield lab
    finally:
        os.chdir(before)
