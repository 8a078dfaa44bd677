"""Install Python packages into a folder of the cache, once and completely.

A folder that exists is complete: packages are installed into a sibling folder, which is then
renamed. One process at a time installs a folder. Its children inherit its lock, so another process
waits for a ``pip`` whose parent was killed. The next installation removes what an interrupted one
left.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import UnavailableError, UsageError

__all__ = [
    "cache_directory",
    "install_environment",
    "install_once",
    "install_packages",
    "make_folder",
]

Progress = Callable[[str], None]


def cache_directory() -> Path:
    """Return the folder of runtimes: ``STLAB_CACHE``, by default ``~/.cache/stlab``.

    Raises:
        UsageError: It is below a home folder, and this user has none.
    """
    configured = Path(os.environ.get("STLAB_CACHE") or "~/.cache/stlab")
    try:
        return configured.expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{configured} cannot be found: no home folder is known.",
            hint="Set STLAB_CACHE to a folder that can be written.",
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder of the cache that other users cannot write, whatever the umask is.

    Folders that exist stay as they are.

    Raises:
        OSError: It cannot be made.
    """
    for one in reversed((folder, *folder.parents)):
        # The umask can only take rights away. Another process may be first.
        one.mkdir(0o755, exist_ok=True)


def install_once(
    folder: Path,
    build: Callable[[Path, int], None],
    *,
    usable: Callable[[Path], bool] = Path.is_dir,
    progress: Progress = lambda _text: None,
) -> Path:
    """Return ``folder``, building it first where it is missing or no longer ``usable``.

    ``build`` fills an empty folder; it gets that folder and the descriptor of the lock, which the
    processes that it starts inherit. ``progress`` is called while another installation runs.

    Raises:
        UnavailableError: The cache cannot be written, or ``build`` says so.
    """
    if usable(folder):
        return folder
    try:
        make_folder(folder.parent)
        with _locked(folder, progress) as lock:
            if usable(folder):
                return folder
            _remove_partial(folder)
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
            try:
                build(partial, lock)
                partial.chmod(0o755)
                if folder.exists():
                    # A running server finds the new folder in its place at once.
                    folder.rename(partial.with_name(f"{partial.name}-old"))
                partial.rename(folder)
            finally:
                _remove_partial(folder)
    except OSError as error:
        raise UnavailableError(
            f"The Triton runtime cannot be installed into {folder.parent}: {error}.",
            hint="Set STLAB_CACHE to a folder that can be written and has 500 MB to spare.",
        ) from error
    return folder


def _remove_partial(folder: Path) -> None:
    for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[int]:
    lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another installation of the Triton runtime")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def install_environment(folder: Path, packages: Sequence[str], lock: int) -> None:
    """Fill an empty folder with a virtual environment that holds exactly ``packages``.

    They are pinned; nothing beyond them is installed. The processes inherit ``lock``.

    Raises:
        UnavailableError: The environment cannot be made, or a package cannot be installed.
    """
    make = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    _run(make, lock, "A virtual environment for the Triton runtime cannot be made")
    _pip(packages, lock, ["--python", str(folder / "bin" / "python3")], [])


def install_packages(folder: Path, packages: Sequence[str], lock: int) -> None:
    """Fill an empty folder with the contents of ``packages``, importable or not.

    They are pinned; nothing beyond them is installed. The processes inherit ``lock``.

    Raises:
        UnavailableError: A package cannot be installed.
    """
    _pip(packages, lock, [], ["--no-compile", "--target", str(folder)])


def _pip(packages: Sequence[str], lock: int, where: list[str], how: list[str]) -> None:
    """Install packages with this interpreter's pip, or one in an environment that is removed."""
    # Only wheels: a source distribution would be compiled for minutes and then fail.
    install = ["install", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
    install += ["--disable-pip-version-check", *how, *packages]
    with tempfile.TemporaryDirectory(prefix="stlab-pip-") as scratch:
        python = sys.executable
        if importlib.util.find_spec("pip") is None:
            _run([python, "-m", "venv", scratch], lock, "No pip can be installed")
            python = str(Path(scratch) / "bin" / "python3")
        failure = f"pip cannot install {', '.join(packages)}"
        _run([python, "-m", "pip", *where, *install], lock, failure)


def _run(command: Sequence[str], lock: int, failure: str) -> None:
    environment = {
        key: value
        for key, value in os.environ.items()
        # The user's prefix or target would send the packages elsewhere.
        if key not in {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"}
    }
    done = subprocess.run(
        command,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise UnavailableError(
            f"{failure} (exit code {done.returncode}):\n{tail}",
            hint="Check that a package index can be reached (pip's own configuration is honoured) "
            f"and has wheels for Python {sysconfig.get_python_version()} on Linux x86_64; another "
            "Triton release (--triton-release) needs another ONNX Runtime.",
        )
