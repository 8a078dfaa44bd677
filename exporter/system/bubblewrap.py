"""bubblewrap: namespaces of its own for a process, without any privilege.

It gets a tree of files made of nothing but its view, and no network, no other processes, no shared
memory of others; all that it starts ends with it, and it ends with the process that started it.

Source: bwrap(1).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.system.view import View

__all__ = ["find", "shows", "wrapped"]

_PROBE_SECONDS = 20.0
_NAMESPACES = (
    "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
    "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
)  # fmt: skip
# Given paths, fails where one cannot be read.
_READ = "import os, sys; sys.exit(not all(os.access(p, 4) for p in sys.stdin.read().split('\\0')))"


def find() -> str:
    """Return the path of a bubblewrap that works here; empty where there is none."""
    return _works(shutil.which("bwrap") or "")


@functools.cache
def _works(path: str) -> str:
    nothing = shutil.which("true")
    if not path or not nothing:
        return ""
    everything = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    try:
        done = subprocess.run(
            [path, *_NAMESPACES, *everything, "--", nothing],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return path if done.returncode == 0 else ""


def shows(bwrap: str, view: View) -> bool:
    """Whether all of a view can be read inside.

    A user namespace knows no other users: what is theirs, and not for everybody, is closed to root
    as well. And bubblewrap takes no more than 9000 arguments.
    """
    command = [*wrapped(bwrap, view), sys.executable, "-I", "-S", "-c", _READ]
    try:
        done = subprocess.run(
            command,
            input="\0".join(filter(os.path.exists, view.read)),
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
    """Return the beginning of a command line that runs the rest of it inside.

    Args:
        bwrap: The program.
        view: What there is inside; the last folder that may be changed is ``/tmp`` as well.
    """
    arguments = [bwrap, *_NAMESPACES, "--proc", "/proc", "--dev", "/dev"]
    for path in view.gpus:
        arguments += ["--dev-bind-try", path, path]
    # Root may write settings of the kernel without any capability.
    arguments += ["--remount-ro", "/proc", "--remount-ro", "/dev", "--bind", view.write[-1], "/tmp"]  # noqa: S108 - a private one
    # What lies higher comes first: a folder would hide what was bound below it.
    for path in sorted(view.read):
        arguments += ["--ro-bind-try", path, path]
    for path in view.write:
        arguments += ["--bind", path, path]
    return [*arguments, "--remount-ro", "/", "--chdir", view.write[0], "--"]
