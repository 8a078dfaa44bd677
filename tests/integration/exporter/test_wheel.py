"""The wheels of stlab and its client, installed outside the checkout: the commands run there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command, environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def site(install_wheels: Callable[..., Path]) -> Path:
    """The packages of an environment of their own, into which the wheels were installed."""
    return install_wheels(ROOT, ROOT / "triton_client")


def test_each_package_has_one_distribution(site: Path) -> None:
    names = {path.name for path in site.iterdir() if path.suffix not in {".dist-info", ".pth"}}
    assert names == {"exporter", "stlab_api", "stlab_dashboard", "stlab_web", "triton_client"}
    for folder in site.glob("*.dist-info"):
        record = (folder / "RECORD").read_text()
        assert ("triton_client/" in record) == folder.name.startswith("stlab_triton_client")
    assert (site / "exporter/triton/backends/model.py").is_file()
    assert (site / "exporter/commands/export/report.html.j2").is_file()
    assert (site / "triton_client/py.typed").is_file()


@pytest.mark.triton
def test_its_command_exports(site: Path, lab: RegistryFixture) -> None:
    binaries = site.parents[2] / "bin"
    where = subprocess.run(
        [binaries / "python", "-c", "import exporter; print(exporter.__file__)"],
        cwd=lab.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    lab.register_onnx("wheel", times(2.0), example=ROWS)
    ran = command(
        lab.folder,
        *("wheel", "--alias", "staging", "--repository", "from-wheel", "--json"),
        program=[str(binaries / "stlab-export")],
        MLFLOW_TRACKING_URI=lab.uri,
    )
    assert (ran.code, ran.result["status"]) == (0, "promoted"), ran.stderr
    assert (lab.folder / "from-wheel/wheel/1/model.onnx").is_file()
    assert lab.alias("wheel") == 1
