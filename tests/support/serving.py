"""A live server on a repository, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.models import ROWS
from triton_client import TritonClient
from triton_client.errors import ModelNotFound, NotReady


@contextmanager
def serving(repository: Path) -> Iterator[TritonServer]:
    """Start a server on a repository that is to be made, and wait until it answers."""
    repository.mkdir()
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    with TritonServer.start(runtime, str(repository)) as server:
        server.wait_live()
        yield server


def factor(server: TritonServer, name: str) -> float:
    """What the served version multiplies by."""
    with TritonClient(server.grpc_url) as client:
        answer = client.model(name).infer({"x": ROWS})["y"]
    return float(np.round((answer / ROWS).mean(), 3))


def ready(server: TritonServer, name: str) -> list[int]:
    """The versions that answer, whatever the files say."""
    with TritonClient(server.grpc_url) as client:
        return [version for version in (1, 2) if _ready(client, name, version)]


def _ready(client: TritonClient, name: str, version: int) -> bool:
    try:
        return client.model(name, version).ready()
    except (ModelNotFound, NotReady):
        return False
