"""Runs a command as a container would: what of a container Linux gives without an engine.

A read-only root, an empty ``/tmp`` in memory, user 1000 without capabilities and without the way
back to them, an environment of its own, and the names of the other containers. The programs are
those of the machine; processes and network are the machine's as well.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from exporter.triton.installation import cache_directory

__all__ = ["contained", "possible"]

USER = 1000
_ROOT = Path(__file__).parents[3]
_APART = ["unshare", "--mount", "--propagation", "private"]
_AS_USER = [
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
]


@functools.cache
def possible() -> bool:
    """Whether this machine lets us: it does let root, but in most containers."""
    if os.geteuid() != 0:
        return False
    tried = subprocess.run(
        contained(["true"], {"PATH": os.environ["PATH"]}, always=True),
        capture_output=True,
        check=False,
        timeout=30,
    )
    return tried.returncode == 0


def contained(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    hosts: Iterable[str] = (),
    readable: Iterable[Path] = (),
    volumes: Iterable[Path] = (),
    always: bool = False,
) -> list[str]:
    """Return the command that runs a command so, or at least in an environment of its own.

    Args:
        command: The program and its arguments.
        environment: All of its environment.
        hosts: Names of this machine.
        readable: Folders beside the project's that it sees.
        volumes: Folders that it may write.
        always: Whether to do so without asking whether it is possible.
    """
    own = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *command]
    if not always and not possible():
        return own
    seen = {path.resolve(): "ro" for path in (*_programs(), *readable)}
    seen |= {path.resolve(): "rw" for path in volumes}
    for path in volumes:
        os.chown(path, USER, USER)
    script = _script(seen, {"/tmp", *filter(None, map(_closed_above, seen))}, hosts)
    return [*_APART, "sh", "-c", script, "sh", *_AS_USER, *own]


def _programs() -> tuple[Path, ...]:
    return _ROOT, Path(sys.base_prefix), cache_directory()


def _closed_above(path: Path) -> str:
    """Return the outermost folder above a path that others may not enter, or nothing."""
    if path.is_relative_to("/tmp"):
        return ""
    above = reversed(path.parents)
    return next((str(folder) for folder in above if not folder.stat().st_mode & 1), "")


def _script(seen: Mapping[Path, str], covered: set[str], hosts: Iterable[str]) -> str:
    # What is to be seen is held aside, and put back once all else is hidden.
    lines = ["set -eu", "hold=$(mktemp -d)", 'mount -t tmpfs tmpfs "$hold"', 'cd "$hold"']
    lines += [f"mkdir {n} && mount --rbind {_word(path)} {n}" for n, path in enumerate(seen)]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(path)}" for path in sorted(covered)]
    lines += ["chmod 1777 /tmp"]
    for number, (path, how) in enumerate(seen.items()):
        lines.append(f"mkdir -p {_word(path)} && mount --move {number} {_word(path)}")
        if how == "ro":
            lines.append(f"mount -o remount,bind,ro {_word(path)}")
    names = " ".join(hosts)
    files = {
        "/etc/hosts": f"127.0.0.1 localhost {names}\\n",
        "/etc/passwd": f"root:x:0:0::/root:/bin/sh\\nstlab:x:{USER}:{USER}::/tmp:/bin/false\\n",
    }
    for file, text in files.items():
        lines += [f"printf '{text}' > {Path(file).name}", f"mount --bind {Path(file).name} {file}"]
    lines += [
        *(f"mount -o remount,ro {shlex.quote(path)}" for path in sorted(covered - {"/tmp"})),
        "mount -t tmpfs -o size=256m,mode=1777 tmpfs /dev/shm",
        "mount -o remount,bind,ro /",
        "cd /tmp",
        'exec "$@"',
    ]
    return "\n".join(lines)


def _word(path: Path) -> str:
    return shlex.quote(str(path))
