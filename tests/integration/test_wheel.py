"""The wheel alone, outside the checkout: commands run, and what they need travels inside."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, code: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_holds_what_the_commands_need(installed: Path, tmp_path: Path) -> None:
    code = (
        "import exporter, pathlib; root = pathlib.Path(exporter.__file__).parent; print(root);"
        "assert (root / 'triton/backends/onnxruntime/model.py').is_file();"
        "assert (root / 'report.html.j2').is_file();"
        "assert (root.parent / 'triton_client/py.typed').is_file();"
        "import exporter.pipeline, exporter.worker"
    )
    assert run(installed, code, tmp_path).strip() == str(installed / "exporter")


def test_holds_nothing_else(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"exporter", "triton_client"}


@pytest.mark.triton
def test_serves_with_the_backend_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "from exporter.triton.releases import release, DEFAULT_RELEASE;"
        "from exporter.triton.runtime import ensure_runtime;"
        "from exporter.triton.server import TritonServer;"
        "import pathlib; pathlib.Path('repository').mkdir();"
        "server = TritonServer.start(ensure_runtime(release(DEFAULT_RELEASE)), 'repository');"
        "server.wait_live(); server.stop(timeout=0); print('live')"
    )
    assert run(installed, code, tmp_path).strip() == "live"
