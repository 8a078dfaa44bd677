"""What `stlab doctor` makes of a machine on which something is missing."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.commands.doctor import installed
from exporter.commands.doctor.command import DoctorRequest, DoctorResult, doctor
from exporter.commands.doctor.installed import Check
from exporter.errors import UsageError
from exporter.system import cuda
from exporter.system.sandbox import Confinement
from tests.support.moto_s3 import S3, serving, set_credentials
from tests.unit.exporter.formats.fake_tensorrt import FakeDriver


class Machine:
    """Packages by name, as if they were or were not installed."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.folder = folder
        self.packages: dict[str, str | None] = {}
        really = metadata.version

        def version(name: str) -> str:
            if name not in self.packages:
                return really(name)
            if self.packages[name] is None:
                raise metadata.PackageNotFoundError(name)
            return str(self.packages[name])

        patch.setattr(installed.metadata, "version", version)
        patch.setattr(installed.metadata, "requires", lambda name: ["torch==2.13.0"])
        patch.setenv("STLAB_CACHE", str(folder / "cache"))

    def look(self, **asked: Any) -> tuple[DoctorResult, dict[str, Check]]:
        asked.setdefault("repository", str(self.folder / "repository"))
        asked.setdefault("tracking_uri", f"sqlite:///{self.folder / 'none.db'}")
        result = doctor(DoctorRequest(**asked))
        checks = {check.name: check for check in result.checks}
        assert len(checks) == len(result.checks)
        for check in result.checks:
            assert check.status in {"ok", "missing", "warning", "failed"}
            assert bool(check.hint) is (check.status != "ok"), check
            assert not (check.exit_code and check.status in {"ok", "warning"})
        assert not [path for path in self.folder.iterdir() if path.name != "file"]
        return result, checks


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_default_way_needs_nothing_more(machine: Machine) -> None:
    for name in ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "lightgbm", "scikit-learn"):
        machine.packages[name] = None
    machine.packages["xgboost"] = "3.0.0"
    machine.packages["xgboost-cpu"] = None
    machine.packages["torch"] = "2.13.0+cu126"
    result, checks = machine.look()
    assert (result.exit_code, result.error, result.as_dict()["status"]) == (0, None, "ok")
    assert checks["torch"].found == "2.13.0+cu126"
    assert "CPU" in checks["onnxruntime"].found
    assert checks["tensorrt"].hint.startswith("pip install 'tensorrt-cu12==11.*'")
    assert checks["flavor lightgbm"].status == "missing"
    assert checks["flavor lightgbm"].hint.startswith("pip install lightgbm scikit-learn (")
    assert "xgboost 3.0.0" in checks["flavor xgboost"].found
    assert checks["flavor xgboost"].hint.startswith("pip install scikit-learn (")
    # Nobody named a registry, and there is none.
    assert checks["registry"].status == "warning"
    assert "created on first use" in checks["repository"].found
    assert f"{machine.folder / 'cache'}, " in checks["cache"].found


def test_a_user_without_a_home_names_the_cache(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("STLAB_CACHE", "~nobody-of-this-name/cache")
    result, checks = machine.look()
    assert (result.exit_code, checks["cache"].status) == (2, "failed")
    assert "STLAB_CACHE" in checks["cache"].hint


@pytest.mark.parametrize("name", ["torch", "onnx", "onnxscript"])
def test_what_every_export_needs_is_missed(machine: Machine, name: str) -> None:
    machine.packages[name] = None
    result, checks = machine.look()
    assert result.exit_code == 2
    assert (result.error or {})["kind"] == "usage"
    assert name in (result.error or {})["message"]
    assert checks[name].status == "missing"
    wanted = "torch==2.13.0" if name == "torch" else name
    assert checks[name].hint == f"pip install '{wanted}'" == (result.error or {})["hint"]


def test_another_torch_is_told(machine: Machine) -> None:
    machine.packages["torch"] = "2.12.1"
    result, checks = machine.look()
    assert result.exit_code == 0
    assert checks["torch"].status == "warning"
    assert "pip install 'torch==2.13.0'" in checks["torch"].hint


def test_onnxruntime_is_there_once(machine: Machine) -> None:
    machine.packages["onnxruntime-gpu"] = "1.27.0"
    _, checks = machine.look()
    assert checks["onnxruntime"].status == "warning"
    assert "pip uninstall onnxruntime onnxruntime-gpu" in checks["onnxruntime"].hint
    machine.packages |= {"onnxruntime": None, "onnxruntime-gpu": None}
    result, checks = machine.look()
    assert (checks["onnxruntime"].status, result.exit_code) == ("missing", 2)
    machine.packages["onnxruntime"] = "1.27.0"

    def broken() -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    machine.patch.setitem(
        sys.modules, "onnxruntime", SimpleNamespace(get_available_providers=broken)
    )
    result, checks = machine.look()
    assert (checks["onnxruntime"].status, result.exit_code) == ("failed", 2)
    assert "libcudart" in checks["onnxruntime"].found


@pytest.mark.parametrize(
    ("version", "name", "status"),
    [("11.4.0.106", "26.07", "ok"), ("10.9.0.34", "26.07", "warning"), ("10.9.0", "25.03", "ok")],
)
def test_tensorrt_is_held_against_the_release(
    machine: Machine, version: str, name: str, status: str
) -> None:
    machine.packages |= {"tensorrt": None, "tensorrt-cu13": None, "tensorrt-cu12": version}
    result, checks = machine.look(triton_release=name)
    assert (result.release, result.exit_code) == (name, 0)
    assert checks["tensorrt"].status == status
    assert version in checks["tensorrt"].found


def test_the_gpu_and_its_driver(machine: Machine) -> None:
    machine.patch.setattr(cuda, "_load", lambda: FakeDriver(most=24 << 30))
    machine.patch.setattr(installed, "driver_version", lambda: "550.54.15")
    _, checks = machine.look()
    assert checks["gpu"].found == "Fake GPU (8.6, 24 GiB); driver 550.54.15"

    def broken() -> None:
        raise OSError

    machine.patch.setattr(cuda, "_load", broken)
    _, checks = machine.look()
    assert checks["gpu"].status == "warning"
    machine.patch.setattr(installed, "driver_version", lambda: "")
    _, checks = machine.look()
    assert (checks["gpu"].status, checks["gpu"].found[:4]) == ("ok", "none")


def test_a_release_that_nobody_knows_yet(machine: Machine) -> None:
    _, checks = machine.look(triton_release="27.01")
    assert checks["release"].status == "warning"
    assert "assumed from the newest known release" in checks["release"].found
    with pytest.raises(UsageError):
        machine.look(triton_release="27")


def test_folders_that_cannot_be_written(machine: Machine) -> None:
    (machine.folder / "file").touch()
    machine.patch.setenv("STLAB_CACHE", str(machine.folder / "file" / "cache"))
    result, checks = machine.look(repository=str(machine.folder / "file" / "models"))
    assert result.exit_code == 2
    for name in ("cache", "repository"):
        assert checks[name].status == "failed"
        assert "is not writable" in checks[name].found
    assert "STLAB_CACHE" in checks["cache"].hint


def test_a_cache_that_the_embedded_server_cannot_run_from(machine: Machine) -> None:
    machine.patch.setenv("STLAB_CACHE", str(machine.folder / "a b"))
    result, checks = machine.look()
    assert result.exit_code == 2
    assert checks["tritonserver"].status == "failed"


def test_a_registry_that_was_named_is_to_be_there(machine: Machine) -> None:
    result, checks = machine.look(registry_named=True)
    assert result.exit_code == 6
    assert (result.error or {})["kind"] == "unavailable"
    assert checks["registry"].status == "failed"
    machine.packages["onnx"] = None  # to be mended first
    assert machine.look(registry_named=True)[0].exit_code == 2


def test_a_store_is_written_and_left_as_it_was(machine: Machine) -> None:
    set_credentials(machine.patch)

    def look(s3: S3) -> tuple[int, Check]:
        machine.patch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        result, checks = machine.look(repository="s3://bucket/production/models")
        return result.exit_code, checks["repository"]

    with serving() as s3:
        s3.reset()
        assert look(s3)[1].status == "ok"
        assert s3.objects() == {}
        s3.refuses = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        code, check = look(s3)
        assert (code, check.status) == (2, "failed")  # the credentials are for the caller to mend


def test_what_confines_a_model_here(machine: Machine) -> None:
    for offered, status, found in (
        (Confinement("/usr/bin/bwrap", 7, seccomp=True), "ok", "bubblewrap, Landlock 7, seccomp"),
        (Confinement("", 2, seccomp=True), "ok", "Landlock 2, seccomp"),
        (Confinement("", 0, seccomp=True), "warning", "seccomp; pickled models are not loaded"),
        (Confinement(), "warning", "none; pickled models are not loaded"),
    ):
        machine.patch.setattr(installed, "confinement", lambda offered=offered: offered)
        result, checks = machine.look()
        assert checks["confinement"].status == status
        assert found in checks["confinement"].found
        assert ("bubblewrap" in checks["confinement"].hint) is (status == "warning")
        assert result.exit_code == 0
