"""Lay out the backends for the embedded server.

Triton looks for a backend in ``<backend-directory>/<name>``. The directory is assembled in the
cache from the server's own python backend, the stub for this Python, and the backends that this
package carries. A hash of its content names it, so an upgrade of the package gets a new one.
"""

from __future__ import annotations

import compileall
import hashlib
import shutil
from pathlib import Path

from exporter.triton.installation import Progress
from exporter.triton.integrity import Installed, install_checked

__all__ = ["SHELL", "assemble_backends"]

PACKAGED_BACKENDS = Path(__file__).parent / "backends"
"""The backends that this package carries."""

SHELL = "shell"
"""The folder of a backend directory that holds a ``bash`` to put first on the server's PATH."""

# The python backend starts its stub by `bash -c " exec STUB MODEL_PATH …"` and quotes nothing
# (python_backend src/stub_launcher.cc): a model path with a space in it would never load, and one
# with a semicolon would run commands. This bash splits the command by the known form of its words.
_BASH = r"""#!/bin/bash
words='^ exec ([^ ]+) (.*) ([^ ]+) ([0-9]+) ([0-9]+) ([0-9]+) ([^ ]+) ([^ ]+) (.+) ([^ ]+)$'
if [[ $# -eq 2 && $1 == -c && $2 =~ $words ]]; then exec "${BASH_REMATCH[@]:1}"; fi
exec /bin/bash "$@"
"""


def assemble_backends(
    cache: Path, server: Path, python_version: str, *, progress: Progress = lambda _text: None
) -> Installed:
    """Return the folder for ``--backend-directory``, in the cache, with a stub for one Python.

    ``server`` is the folder ``pytriton/tritonserver`` of the wheel.

    Raises:
        UnavailableError: The cache cannot be written.
    """
    # Triton puts a backend's own folder alone on Python's path: each gets the shared package.
    shared = [PACKAGED_BACKENDS / "__init__.py", *(PACKAGED_BACKENDS / "shared").glob("*.py")]
    files = {}
    for name in ("onnxruntime", "pytorch"):
        files[f"{name}/model.py"] = PACKAGED_BACKENDS / "model.py"
        for path in (*shared, *(PACKAGED_BACKENDS / name).glob("*.py")):
            files[f"{name}/stlab_backends/{path.relative_to(PACKAGED_BACKENDS)}"] = path
    # The stub is made for the version that runs this, and so is the bytecode.
    digest = hashlib.sha256(f"{server}\n{python_version}\n{_BASH}\n".encode())
    for place, path in sorted(files.items()):
        digest.update(f"{place}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    final = cache / f"backends-{digest.hexdigest()[:16]}"

    def build(folder: Path, _lock: int) -> None:
        for place, path in files.items():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        bash = folder / SHELL / "bash"
        bash.parent.mkdir()
        bash.write_text(_BASH)
        bash.chmod(0o755)
        python = folder / "python"
        python.mkdir()
        stub = server / "python_backend_stubs" / python_version / "triton_python_backend_stub"
        for path in (stub, *(server / "backends" / "python").iterdir()):
            if path.is_file():
                _link(path, python / path.name)
        # The server does not write bytecode: the folder stays as it is.
        compileall.compile_dir(folder, quiet=2, stripdir=str(folder), prependdir=str(final))

    return install_checked(final, build, progress=progress)


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``; the server refuses a symbolic link."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
