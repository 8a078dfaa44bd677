from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.triton.server import TritonServer

from .registering import Lab
from .serving import serving


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.open(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[TritonServer]:
    """A live server on the lab's repository, in explicit mode."""
    with serving(lab.folder / "repository") as server:
        yield server
