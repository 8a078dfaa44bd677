"""Check what is installed: packages, the GPU, the server, the cache. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from exporter.errors import StlabError, UsageError, first_line
from exporter.system.cuda import CudaError, driver_version, gpus
from exporter.system.sandbox import confinement
from exporter.triton.installation import cache_directory
from exporter.triton.releases import Release
from exporter.triton.runtime import describe_runtime

__all__ = ["Check", "installed", "is_writable"]

# The size of the embedded server with ONNX Runtime, without torch.
CACHE_BYTES = 500 * 1024 * 1024
# The packages of each flavor, besides torch and onnx: each by its alternative distribution names,
# of which the first is recommended.
_FLAVORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sklearn": (("scikit-learn",), ("skl2onnx",), ("skops",)),
    "xgboost": (("xgboost-cpu", "xgboost"), ("scikit-learn",)),
    "lightgbm": (("lightgbm",), ("scikit-learn",), ("skops",)),
    "transformers": (("transformers",), ("tokenizers",)),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What was checked.
        status: ``ok``, ``missing``, ``warning`` or ``failed``.
        found: What was found.
        hint: How to fix it, with the command; empty if there is nothing to fix.
        exit_code: The exit code of the command if an export cannot run without it; else 0.
    """

    name: str
    status: str
    found: str
    hint: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the check."""
        return {"name": self.name, "status": self.status, "found": self.found, "hint": self.hint}


def installed(release: Release) -> Iterator[Check]:
    """Yield a check of everything that an export to a release may need on this machine."""
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield _torch()
    yield _required("onnx")
    yield _required("onnxscript")
    yield _onnxruntime()
    for flavor, packages in _FLAVORS.items():
        yield _flavor(flavor, packages)
    yield _tensorrt(release)
    yield _gpu()
    yield _server(release)
    yield _confinement()
    yield _cache()


def is_writable(folder: Path) -> bool:
    """Whether a folder is writable, or can be created."""
    existing = _nearest_existing(folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _torch() -> Check:
    requirement = _requirement("torch")
    check = _required("torch", str(requirement))
    if check.status != "ok" or requirement.specifier.contains(check.found, prereleases=True):
        return check
    return Check(
        "torch",
        "warning",
        f"{check.found}; bundles are built with {str(requirement.specifier).removeprefix('==')}",
        f"pip install '{requirement}' (another torch may build other bundles)",
    )


def _onnxruntime() -> Check:
    builds = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    present = {name: version for name, version in builds.items() if version}
    if not present:
        return Check("onnxruntime", "missing", "", "pip install 'onnxruntime>=1.20'", 2)
    found = ", ".join(f"{name} {version}" for name, version in present.items())
    try:
        import onnxruntime

        providers = onnxruntime.get_available_providers()
    except Exception as error:  # noqa: BLE001 - a broken build raises any exception
        hint = f"pip install --force-reinstall {next(iter(present))}"
        return Check("onnxruntime", "failed", f"{found}: {first_line(error)}", hint, 2)
    names = [name.removesuffix("ExecutionProvider") for name in providers]
    found = f"{found} ({', '.join(names)})"
    if len(present) > 1:
        hint = f"pip uninstall {' '.join(present)}, then install one (they overwrite each other)"
        return Check("onnxruntime", "warning", found, hint)
    return Check("onnxruntime", "ok", found)


def _flavor(flavor: str, packages: tuple[tuple[str, ...], ...]) -> Check:
    found, missing = [], []
    for names in packages:
        versions = [f"{name} {_version(name)}" for name in names if _version(name)]
        if versions:
            found.append(versions[0])
        else:
            missing.append(names[0])
    text = ", ".join(found)
    name = f"flavor {flavor}"
    if not missing:
        return Check(name, "ok", text)
    hint = f"pip install {' '.join(missing)} (for models of this flavor)"
    return Check(name, "missing", text, hint)


def _tensorrt(release: Release) -> Check:
    from exporter.formats.tensorrt.requirements import install_command

    names = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    version = next((found for found in map(_version, names) if found), "")
    wanted = f"Triton {release.name} has {release.tensorrt or 'an unknown version'}"
    if not version:
        hint = f"{install_command(release)} (for --format tensorrt, which requires a GPU)"
        return Check("tensorrt", "missing", f"none; {wanted}", hint)
    if not release.tensorrt_matches(version):
        hint = f"{install_command(release)} (a plan runs only on the TensorRT that built it)"
        return Check("tensorrt", "warning", f"{version}; {wanted}", hint)
    return Check("tensorrt", "ok", f"{version}; {wanted}")


def _gpu() -> Check:
    driver = driver_version()
    try:
        found = gpus()
    except CudaError as error:
        if not driver:
            return Check("gpu", "ok", "none; models are proven on the CPU")
        hint = "Check nvidia-smi; the driver may have been updated without a reboot."
        return Check("gpu", "warning", f"driver {driver}: {error}", hint)
    names = ", ".join(f"{g.name} ({g.capability}, {g.memory >> 30} GiB)" for g in found)
    return Check("gpu", "ok", f"{names or 'none'}; driver {driver or 'unknown'}")


def _server(release: Release) -> Check:
    try:
        return Check("tritonserver", "ok", describe_runtime(release))
    except StlabError as error:
        return Check("tritonserver", "failed", error.message, error.hint, 2)


def _confinement() -> Check:
    offered = confinement()
    if offered.complete:
        return Check("confinement", "ok", f"{offered}: the sandbox of a model's code")
    hint = (
        "apt-get install bubblewrap, or use Linux 5.13 or newer with Landlock (required for "
        "pickled models; other models run unconfined)"
    )
    return Check("confinement", "warning", f"{offered}; pickled models are not loaded", hint)


def _cache() -> Check:
    try:
        cache = cache_directory()
    except UsageError as error:
        return Check("cache", "failed", error.message, error.hint, error.exit_code)
    free = shutil.disk_usage(_nearest_existing(cache)).free
    hint = "Set STLAB_CACHE to a writable folder with 500 MB of free space."
    if not is_writable(cache):
        return Check("cache", "failed", f"{cache} is not writable", hint, 2)
    found = f"{cache}, {free / 2**30:.1f} GiB free"
    if free <= CACHE_BYTES:
        return Check("cache", "warning", found, hint)
    return Check("cache", "ok", found)


def _required(name: str, requirement: str = "") -> Check:
    version = _version(name)
    if not version:
        return Check(name, "missing", "", f"pip install '{requirement or name}'", 2)
    return Check(name, "ok", version)


def _requirement(name: str) -> Requirement:
    """Return the versions of a package that stlab requires, such as ``torch==2.13.0``."""
    try:
        requirements = map(Requirement, metadata.requires("stlab") or [])
    except metadata.PackageNotFoundError:
        return Requirement(name)
    return next((r for r in requirements if r.name == name and not r.marker), Requirement(name))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    path = folder.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
