"""What a confined process may read of what Python imports from."""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.system.view import libraries, view


def reads(path: Path) -> bool:
    """Whether a path is in the view, or below something that is."""
    return bool({path, *path.parents} & set(libraries()))


def test_of_a_project_its_modules_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    code = ("plain/__init__.py", "space/part/module.py", "hidden/__init__.py", "hidden/sub/a.py",
            "alone.py", "fast.so", "own.dist-info/METADATA")  # fmt: skip
    private = (".env", "mlflow.db", "mlruns/0/run/model.pkl", "models/m/1/model.py", "id_rsa",
               "hidden/.env", "hidden/sub/.netrc", ".venv/x/a.py", "data/rows.csv")  # fmt: skip
    for name in (*code, *private):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    assert not reads(project / "alone.py")
    monkeypatch.setattr(sys, "path", [*sys.path, str(project), "", "relative", "/"])
    assert [name for name in code if not reads(project / name)] == []
    assert [name for name in private if reads(project / name)] == []
    assert str(project) in view([], []).listed
    assert str(project) not in view([], []).read


def test_a_package_with_much_data_and_a_foreign_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "project" / "package"
    for name in ("__init__.py", "rows/.env", "rows/a.py", "foreign/a.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    for number in range(3500):
        (package / "rows" / f"{number}.csv").touch()
    plain = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # a fake, since root may read every folder
        if path.name == "foreign":
            raise PermissionError(path)
        return plain(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(sys, "path", [*sys.path, str(package.parent)])
    assert reads(package / "__init__.py")
    assert reads(package / "rows" / "a.py")
    assert not reads(package / "rows" / "7.csv")
    assert not reads(package / "rows" / ".env")
    assert not reads(package / "foreign")


def test_a_project_that_is_a_virtual_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bin/python", "lib/python3.11/site-packages/a.py", "package/a.py", "lib64/x.so",
                 ".env", "mlflow.db", "data/rows.csv"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    for path in ([], [str(tmp_path)]):
        monkeypatch.setattr(sys, "path", [*sys.path, *path])
        for name in ("bin/python", "lib/python3.11/site-packages/a.py", "lib64/x.so", "pyvenv.cfg"):
            assert reads(tmp_path / name), name
        for name in (".env", "mlflow.db", "data/rows.csv"):
            assert not reads(tmp_path / name), name
    assert reads(tmp_path / "package" / "a.py")


def test_libraries_that_the_linker_found_elsewhere(tmp_path: Path) -> None:
    """As Spack and Homebrew link by RPATH."""
    library = Path(_ctypes.__file__)
    for name in ("zlib-1.3/lib", "project"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(library, tmp_path / name / "used.so")
        (tmp_path / name / "neighbour.so.1").touch()
        ctypes.CDLL(str(tmp_path / name / "used.so"))
    assert reads(tmp_path / "zlib-1.3" / "lib" / "neighbour.so.1")
    assert reads(tmp_path / "project" / "used.so")
    assert not reads(tmp_path / "project" / "neighbour.so.1")


def test_of_an_installation_everything_but_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "other" / "site-packages"
    for name in ("part/data.json", "single.py"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / "venv" / "lib").mkdir(parents=True)
    (tmp_path / "venv" / "pip.conf").write_text("index-url = https://user:password@index")
    assert reads(site / "part" / "data.json")
    assert reads(tmp_path / "venv" / "lib" / "x.py")
    assert not reads(tmp_path / "venv" / "pip.conf")
    assert reads(Path(sys.executable).resolve())
