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

_TAIL_LINES = 15


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
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        try:
            one.mkdir(0o755)  # the umask can only take rights away
        except FileExistsError:  # another process was first
            if not one.is_dir():
                raise


def install_once(
    folder: Path,
    build: Callable[[Path, int], None],
    *,
    usable: Callable[[Path], bool] = Path.is_dir,
    progress: Progress | None = None,
) -> Path:
    """Return ``folder``, building it first where it is missing or no longer usable.

    Args:
        folder: The final place.
        build: Fills an empty folder; gets that folder and the descriptor of the lock, which the
            processes that it starts inherit.
        usable: Whether a finished folder still works; the interpreter that it refers to may have
            been removed.
        progress: Called while another installation runs.

    Returns:
        The folder, complete.

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
            for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
            try:
                build(partial, lock)
                partial.chmod(0o755)
                if folder.exists():
                    # A running server finds the new folder in its place at once.
                    folder.rename(partial.with_name(f"{partial.name}-old"))
                partial.rename(folder)
            finally:
                for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
    except OSError as error:
        raise UnavailableError(
            f"The Triton runtime cannot be installed into {folder.parent}: {error}.",
            hint="Set STLAB_CACHE to a folder that can be written and has 500 MB to spare.",
        ) from error
    return folder


@contextmanager
def _locked(folder: Path, progress: Progress | None) -> Iterator[int]:
    lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress is not None:
                progress("waiting for another installation of the Triton runtime")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def install_environment(folder: Path, packages: Sequence[str], lock: int) -> None:
    """Fill ``folder`` with a virtual environment that holds exactly ``packages``.

    The environment gets no ``pip`` of its own where the current interpreter's can install into it.

    Args:
        folder: An empty folder.
        packages: Pinned requirements; nothing beyond them is installed.
        lock: Descriptor that the processes inherit.

    Raises:
        UnavailableError: The environment cannot be made, or a package cannot be installed.
    """
    own_pip = importlib.util.find_spec("pip") is None
    make = [sys.executable, "-m", "venv", *([] if own_pip else ["--without-pip"]), str(folder)]
    _run(make, lock, "A virtual environment for the Triton runtime cannot be made")
    python = folder / "bin" / "python3"
    pip = [str(python), "-m", "pip"] if own_pip else [*_current_pip(), "--python", str(python)]
    _pip_install(pip, [], packages, lock)


def install_packages(folder: Path, packages: Sequence[str], lock: int) -> None:
    """Fill ``folder`` with the contents of ``packages``, importable or not.

    Args:
        folder: An empty folder.
        packages: Pinned requirements; nothing beyond them is installed.
        lock: Descriptor that the processes inherit.

    Raises:
        UnavailableError: A package cannot be installed.
    """
    if importlib.util.find_spec("pip") is not None:
        _pip_install(_current_pip(), ["--no-compile", "--target", str(folder)], packages, lock)
        return
    with tempfile.TemporaryDirectory(prefix="stlab-pip-") as scratch:
        _run([sys.executable, "-m", "venv", scratch], lock, "No pip can be installed")
        pip = [str(Path(scratch) / "bin" / "python3"), "-m", "pip"]
        _pip_install(pip, ["--no-compile", "--target", str(folder)], packages, lock)


def _current_pip() -> list[str]:
    return [sys.executable, "-m", "pip"]


def _pip_install(
    pip: Sequence[str], options: Sequence[str], packages: Sequence[str], lock: int
) -> None:
    # Only wheels: a source distribution would be compiled for minutes and then fail.
    install = ["install", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
    command = [*pip, *install, "--disable-pip-version-check", *options, *packages]
    _run(command, lock, f"pip cannot install {', '.join(packages)}")


def _run(command: Sequence[str], lock: int, failure: str) -> None:
    environment = {
        key: value
        for key, value in os.environ.items()
        # The user's prefix or target would send the packages elsewhere.
        if key not in {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"}
    }
    done = subprocess.run(
        list(command),
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
        tail = "\n".join(done.stdout.strip().splitlines()[-_TAIL_LINES:])
        raise UnavailableError(
            f"{failure} (exit code {done.returncode}):\n{tail}",
            hint=(
                "Check that a package index can be reached (pip's own configuration is honoured) "
                f"and has wheels for Python {sys.version_info[0]}.{sys.version_info[1]} "
                "on Linux x86_64; another Triton release (--triton-release) needs another "
                "ONNX Runtime."
            ),
        )
