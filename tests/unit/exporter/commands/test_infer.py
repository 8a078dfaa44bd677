"""What is refused before a server is asked, and where none answers."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from exporter.commands.infer.command import InferRequest, first_address, infer


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"x": [[1.0]]}))
    return path


@pytest.mark.parametrize(
    ("urls", "first"),
    [
        ("localhost:8001", "localhost:8001"),
        ("a:1, b:2", "a:1"),
        (" a:1 b:2\n", "a:1"),
        (",a:1", "a:1"),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8001 b:2", "ipv4:10.0.0.1:8001,10.0.0.2:8001"),
        ("", ""),
    ],
)
def test_the_first_of_several_addresses(urls: str, first: str) -> None:
    assert first_address(urls) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0.0}, "--deadline"),
        ({"deadline": float("nan")}, "--deadline"),
        ({"output": Path("y.json")}, r"--output must be a \.npz"),
        ({"output": Path("nowhere/y.npz")}, "folder nowhere does not exist"),
        ({"url": "http://localhost:8000"}, "--url"),
        ({"url": ""}, "--url"),
        ({"inputs": Path("missing.npz")}, "does not exist"),
    ],
)
def test_what_makes_no_sense(inputs: Path, options: dict[str, object], message: str) -> None:
    request = InferRequest(**{"model": "m", "inputs": inputs, "url": "localhost:1", **options})  # type: ignore[arg-type]
    result = infer(request)
    assert (result.exit_code, result.model) == (2, "m")
    assert result.error is not None
    assert result.error["kind"] == "usage"
    assert result.error["hint"]
    assert re.search(message, result.error["message"])


def test_no_server(inputs: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        result = infer(InferRequest("m", inputs, url, version=3))
    assert (result.exit_code, result.version) == (6, 3)
    assert result.error is not None
    assert result.error["kind"] == "unavailable"
    assert "--url" in result.error["hint"]
