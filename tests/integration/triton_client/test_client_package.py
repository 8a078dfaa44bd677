"""The client alone: a wheel of its own, with nothing of the exporter in it or behind it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLIENT = ROOT / "triton_client"
HEAVY = {"exporter", "mlflow", "torch", "onnx", "opentelemetry", "aiohttp", "pandas"}
DISTRIBUTIONS = {"google": "protobuf", "grpc": "grpcio"}
PROBE = """
import sys, json, pathlib
from importlib.metadata import metadata
import triton_client
from triton_client import AsyncTritonClient, TritonClient
with TritonClient("localhost:1") as client:
    client.live(deadline=0.5)
home = pathlib.Path(triton_client.__file__).parent
print(json.dumps({
    "home": str(home),
    "typed": (home / "py.typed").is_file(),
    "loaded": sorted({name.split(".")[0] for name in sys.modules}),
    "license": metadata("stlab-triton-client").get_all("License-File"),
}))
"""


@pytest.fixture(scope="module")
def site(install_wheels: Callable[..., Path]) -> Path:
    """The packages of an environment of its own, into which the wheel was installed."""
    return install_wheels(CLIENT)


@pytest.fixture(scope="module")
def seen(site: Path) -> dict[str, Any]:
    """What a fresh interpreter finds there after a client was used."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(site.parents[2] / "bin/python"), "-c", PROBE],
        cwd=site.parents[3],
        env=kept,
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


def test_holds_the_package_and_nothing_else(site: Path) -> None:
    names = {path.name for path in site.iterdir() if path.suffix not in {".dist-info", ".pth"}}
    assert names == {"triton_client"}
    package = site / "triton_client"
    installed = {path.relative_to(package) for path in package.rglob("*") if path.suffix != ".pyc"}
    source = {path.relative_to(CLIENT) for path in CLIENT.rglob("*.py")}
    folders = {path.parent for path in source} - {Path()}
    caches = {path for path in installed if path.name == "__pycache__"}
    assert installed - caches == {Path("py.typed")} | source | folders


def test_a_client_loads_nothing_heavy(site: Path, seen: dict[str, Any]) -> None:
    assert Path(seen["home"]) == site / "triton_client"
    assert {"triton_client", "grpc", "numpy"} <= set(seen["loaded"])
    assert not HEAVY & set(seen["loaded"])


def test_types_and_license_come_along(seen: dict[str, Any]) -> None:
    assert seen["typed"]
    assert seen["license"] == ["LICENSE"]
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_it_imports_is_installed_with_it() -> None:
    imported: set[str] = set()
    for path in CLIENT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    needed = {DISTRIBUTIONS.get(name, name) for name in imported - sys.stdlib_module_names}
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[\[>=<]", item)[0] for item in project["dependencies"]}
    assert needed - {"triton_client"} == named


def test_it_says_what_the_root_says() -> None:
    root, client = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for folder in (ROOT, CLIENT)
    )
    for field in ("version", "requires-python", "license"):
        assert client[field] == root[field]
    assert f"{client['name']}=={client['version']}" in root["dependencies"]
    shared = {re.split(r"[\[>=<]", item)[0] for item in client["dependencies"]}
    for item in root["dependencies"]:
        if re.split(r"[\[>=<]", item)[0] in shared:
            assert item in client["dependencies"]


def test_the_sync_client_is_that_of_the_asyncio_one() -> None:
    check = [sys.executable, str(ROOT / "tools/generate_sync_client.py"), "--check"]
    subprocess.run(check, check=True)
