"""bubblewrap: namespaces of its own for a process, without any privilege.

Inside, the file system holds nothing but the process's view, and there is no network, no other
process and no shared memory. What the process starts ends with it, and it ends with its parent.

Source: bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from exporter.system.view import View

__all__ = ["find", "shows", "wrapped"]

_PROBE_SECONDS = 20.0
_NAMESPACES = (
    "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
    "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
)  # fmt: skip
# Fails where one of the paths on stdin cannot be read.
_READ = "import os, sys; sys.exit(not all(os.access(p, 4) for p in sys.stdin.read().split('\\0')))"


def find() -> str:
    """Return the path of a working bubblewrap; empty where there is none."""
    path, program = shutil.which("bwrap"), shutil.which("true")
    if not path or not program:
        return ""
    everything = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    return path if _succeeds([path, *_NAMESPACES, *everything, "--", program]) else ""


def shows(bwrap: str, view: View) -> bool:
    """Whether all of a view can be read inside.

    A user namespace maps no other users: their private files are closed to root as well. And
    bubblewrap takes no more than 9000 arguments.
    """
    command = [*wrapped(bwrap, view), sys.executable, "-I", "-S", "-c", _READ]
    return _succeeds(command, "\0".join(filter(os.path.exists, view.read)))


def _succeeds(command: list[str], text: str = "") -> bool:
    try:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def wrapped(bwrap: str, view: View) -> list[str]:
    """Return the beginning of a command line, whose rest runs inside, with a view's files only.

    The last folder that may be changed is ``/tmp`` as well.
    """
    arguments = [bwrap, *_NAMESPACES, "--proc", "/proc", "--dev", "/dev"]
    for path in view.gpus:
        arguments += ["--dev-bind-try", path, path]
    # Root may write settings of the kernel without any capability.
    arguments += ["--remount-ro", "/proc", "--remount-ro", "/dev", "--bind", view.write[-1], "/tmp"]  # noqa: S108 - a private one
    # A folder comes before what is below it, which it would hide.
    for path in sorted(view.read):
        arguments += ["--ro-bind-try", path, path]
    for path in view.write:
        arguments += ["--bind", path, path]
    return [*arguments, "--remount-ro", "/", "--chdir", view.write[0], "--"]
