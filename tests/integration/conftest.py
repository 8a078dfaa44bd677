"""What several integration tests install."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def install_wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build the wheels of projects and install them into an environment of their own.

    The wheels' dependencies are lent by the environment that runs the tests. They are found by a
    path alone, so that what is installed there from the checkout is not.
    """

    def install(*projects: Path) -> Path:
        """Return the site-packages of the environment."""
        folder = tmp_path_factory.mktemp("wheel")
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
        for project in projects:
            subprocess.run([*build, str(project)], check=True, capture_output=True)
        wheels = [str(wheel) for wheel in folder.glob("*.whl")]
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True
        )
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "venv/bin/python")]
        options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *options, *wheels], check=True, capture_output=True)
        (site,) = (folder / "venv/lib").glob("python*/site-packages")
        (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return site

    return install
