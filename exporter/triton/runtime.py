"""A tritonserver to run: the one on ``PATH``, or one installed on first use.

The wheel ``nvidia-pytriton`` carries NVIDIA's server with the python backend; nothing else of it is
used. ONNX Runtime, in the exact version of the target release, is installed into an environment of
its own, so that a model which is too new for production fails here too. TorchScript models use the
torch that stlab itself depends on.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from exporter.errors import UnavailableError
from exporter.triton.backend_directory import SHELL, assemble_backends
from exporter.triton.installation import (
    Progress,
    cache_directory,
    install_environment,
    install_packages,
)
from exporter.triton.integrity import Installed, check_owner, install_checked
from exporter.triton.releases import Release

__all__ = [
    "LAUNCHER_MARK",
    "Runtime",
    "describe_runtime",
    "ensure_runtime",
    "find_tritonserver",
]

LAUNCHER_MARK = "stlab-tritonserver-launcher"
"""A mark in the launcher's text, which distinguishes it from a real server."""

_SERVER = "nvidia-pytriton==0.7.0"
# From numpy 2 on, this server's python backend reads wrong values without an error.
_NUMPY = "numpy==1.26.4"
# Versions that NVIDIA built itself and that no wheel exists of: the nearest older one.
_NEAREST_WHEEL = {"1.17.2": "1.17.1"}


@dataclass(frozen=True, slots=True)
class Runtime:
    """What it takes to start a server.

    Attributes:
        executable: The tritonserver.
        backend_directory: The value of ``--backend-directory``, where it is not the server's own.
        environment: To be merged over ``os.environ``.
        onnxruntime: The version of ONNX Runtime behind the ``onnxruntime`` backend; empty where
            the server is not the embedded one.
        embedded: Whether stlab installed it.
        installed: The folders that an embedded server runs from.
    """

    executable: Path
    backend_directory: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    onnxruntime: str = ""
    embedded: bool = False
    installed: tuple[Installed, ...] = ()

    def check(self) -> None:
        """Check that every file that it runs is the one that was installed.

        Raises:
            UnavailableError: One was changed since the runtime was looked up.
        """
        for one in self.installed:
            one.check()

    def has_flag(self, name: str) -> bool:
        """Whether the server knows a flag that not every release has."""
        if self.embedded:
            return False  # 24.10 is older than every flag that is looked for
        try:
            shown = subprocess.run(
                [str(self.executable), "--help"],
                capture_output=True,
                check=False,
                timeout=60,
                env={"PATH": os.environ.get("PATH", os.defpath), **self.environment},
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return name.encode() in shown.stdout + shown.stderr


def find_tritonserver() -> Path | None:
    """Return the first ``tritonserver`` on ``PATH`` that is not our launcher, if there is one."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder) / "tritonserver"
        if folder and os.access(candidate, os.X_OK) and candidate.is_file():
            with candidate.open("rb") as file:
                if LAUNCHER_MARK.encode() not in file.read(4096):
                    return candidate
    return None


def ensure_runtime(release: Release, *, progress: Progress = lambda _text: None) -> Runtime:
    """Return a server with the ONNX Runtime of a release, installing it where there is none.

    A server on ``PATH`` is preferred, whatever its version.

    Raises:
        UnavailableError: No server exists for this platform or Python, or it cannot be installed.
        ConflictError: Others can write where it is installed.
    """
    found = find_tritonserver()
    if found is not None:
        return Runtime(executable=found)
    libpython = _require_platform()
    cache = _require_cache()
    python_version = sysconfig.get_python_version()
    onnxruntime = _NEAREST_WHEEL.get(release.onnxruntime, release.onnxruntime)

    def install_server(folder: Path, lock: int) -> None:
        progress("installing tritonserver")
        install_packages(folder, [_SERVER], lock)

    def install_python(folder: Path, lock: int) -> None:
        progress(f"installing ONNX Runtime {onnxruntime}")
        install_environment(folder, [_NUMPY, f"onnxruntime=={onnxruntime}"], lock)

    def has_python(folder: Path) -> bool:
        # The environment refers to the Python that it was made with, which may be gone.
        return (folder / "bin" / "python3").exists()

    install = partial(install_checked, progress=progress)
    with ThreadPoolExecutor(max_workers=2) as pool:
        folder = cache / _SERVER.replace("==", "-")
        server = pool.submit(install, folder, install_server)
        folder = cache / f"onnxruntime-{onnxruntime}-python-{python_version}"
        environment = pool.submit(install, folder, install_python, usable=has_python)
        site, python = server.result(), environment.result()
    tritonserver = site.folder / "pytriton" / "tritonserver"
    backends = assemble_backends(cache, tritonserver, python_version, progress=progress)
    return Runtime(
        executable=tritonserver / "bin" / "tritonserver",
        backend_directory=backends.folder,
        environment=_environment(release, python.folder, site.folder, libpython, backends.folder),
        onnxruntime=onnxruntime,
        embedded=True,
        installed=(site, python, backends),
    )


def describe_runtime(release: Release) -> str:
    """Describe what `ensure_runtime` would return, without installing it.

    Raises:
        UnavailableError: No server exists for this platform or Python.
    """
    found = find_tritonserver()
    if found is not None:
        return f"{found}, from PATH"
    _require_platform()
    there = (_require_cache() / _SERVER.replace("==", "-")).is_dir()
    when = "installed" if there else "installed when it is first needed"
    return f"embedded, with ONNX Runtime {release.onnxruntime}; {when}"


def _environment(
    release: Release, python: Path, site: Path, libpython: Path | None, backends: Path
) -> dict[str, str]:
    libraries = [site / "nvidia_pytriton.libs", libpython, os.environ.get("LD_LIBRARY_PATH")]
    torch = importlib.util.find_spec("torch")
    return {
        # Only the pytorch backend imports torch from there: see its lending.py.
        **({"STLAB_TORCH": str(Path(torch.origin).parents[1])} if torch and torch.origin else {}),
        "LD_LIBRARY_PATH": os.pathsep.join(str(one) for one in libraries if one),
        # The python backend runs in the environment of the python3 that it finds first.
        "PATH": os.pathsep.join(
            [str(backends / SHELL), str(python / "bin"), os.environ.get("PATH", os.defpath)]
        ),
        "VIRTUAL_ENV": str(python),
        # The caller's Python must not leak in: another numpy gives wrong values.
        "PYTHONHOME": "",
        "PYTHONPATH": "",
        "PYTHONNOUSERSITE": "1",
        # What it runs from stays as it was installed.
        "PYTHONDONTWRITEBYTECODE": "1",
        # numpy only copies here; its threads would cost start-up time and memory.
        "OPENBLAS_NUM_THREADS": "1",
        # Requests allocate and free thousands of small blocks. Larger caches for each thread, and
        # no list of fast chunks that has to be merged again and again, cost it less time for each.
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000:glibc.malloc.mxfast=0",
        "STLAB_TRITON_RELEASE": release.name,
    }


def _require_cache() -> Path:
    """Return the cache's folder of servers, whose path a shell takes as one word."""
    cache = cache_directory().absolute()
    # The python backend first tries its stub by a shell, without quotes around the path.
    if not re.fullmatch(r"[\w./:@%+=,-]+", str(cache), re.ASCII):
        raise UnavailableError(
            f"the embedded Triton cannot run from {cache}: it passes that path to a shell unquoted",
            hint="Set STLAB_CACHE to a folder without spaces and special characters in its path.",
        )
    # An older stlab's folder, triton, has no record of its files.
    runtimes = cache / "runtime"
    for folder in (cache, runtimes):
        check_owner(folder)
    return runtimes


def _require_platform() -> Path | None:
    """Return the folder of libpython, or None where the system's linker knows it."""
    hint = "Put a tritonserver on PATH, or run inside NVIDIA's Triton container."
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in {"x86_64", "AMD64"}:
        raise UnavailableError(
            f"The embedded Triton runs on Linux x86_64 only, not on {system} {machine}.", hint=hint
        )
    version = sysconfig.get_python_version()
    if sys.version_info[:2] > (3, 13):
        raise UnavailableError(
            f"The embedded Triton has no python backend for Python {version} (3.8 to 3.13).",
            hint=hint,
        )
    if version == "3.13":
        return None  # This one's libpython travels in the wheel.
    library = f"libpython{version}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and (Path(folder) / library).exists():
            return Path(folder)
    if any((Path(folder) / library).exists() for folder in _SYSTEM_LIBRARIES):
        return None
    raise UnavailableError(
        f"The embedded Triton needs {library}, but this Python was built without it.",
        hint=f"Use a Python built with --enable-shared (uv's and Debian's are). {hint}",
    )


_SYSTEM_LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64")
