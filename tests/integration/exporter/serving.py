"""What a live server answers."""

from __future__ import annotations

import numpy as np

from exporter.triton.server import TritonServer
from triton_client import TritonClient
from triton_client.errors import ModelNotFound, NotReady

from .models import ROWS


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
