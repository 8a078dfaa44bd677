"""Confinement of foreign code: the layers that this machine offers, and the command that uses them.

Two layers, each of which is enough for files: bubblewrap's namespaces around the process, and
Landlock inside it. A filter of system calls is part of both.
"""

from __future__ import annotations

import functools
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.system import bubblewrap, landlock, seccomp
from exporter.system.confined import Plan
from exporter.system.kernel import PR_SET_DUMPABLE, prctl
from exporter.system.limits import Limits
from exporter.system.view import View

__all__ = ["Confinement", "confined_command", "confinement", "hide_process", "suited"]


@dataclass(frozen=True, slots=True)
class Confinement:
    """Layers of confinement.

    Attributes:
        bwrap: The path of a bubblewrap that works; empty where there is none.
        landlock: The version of the kernel's Landlock; 0 where there is none.
        seccomp: Whether system calls can be filtered.
    """

    bwrap: str = ""
    landlock: int = 0
    seccomp: bool = False

    @property
    def complete(self) -> bool:
        """Whether foreign code is kept from the network, from files and from other processes."""
        return self.seccomp and bool(self.bwrap or self.landlock)

    def __str__(self) -> str:
        layers = {
            "bubblewrap": self.bwrap,
            f"Landlock {self.landlock}": self.landlock,
            "seccomp": self.seccomp,
        }
        return ", ".join(name for name, offered in layers.items() if offered) or "none"


def confinement() -> Confinement:
    """Return the layers that this machine offers; the result is cached."""
    return _found(os.environ.get("PATH", ""))


@functools.cache
def _found(path: str) -> Confinement:  # noqa: ARG001 - where bwrap is looked for
    return Confinement(bubblewrap.find(), landlock.version(), seccomp.is_supported())


def suited(offered: Confinement, view: View) -> Confinement:
    """Return the layers that leave a view readable: in bubblewrap, other users' files may not be.

    Without bubblewrap there is still Landlock; where there is none, nothing changes.
    """
    without = replace(offered, bwrap="")
    if offered.bwrap and without.complete and not bubblewrap.shows(offered.bwrap, view):
        return without
    return offered


def confined_command(
    offered: Confinement, view: View, limits: Limits, module: str, argument: str
) -> list[str]:
    """Return the command line that runs a module of stlab, confined by the offered layers.

    Its plan is written into the first folder that it may change.
    """
    # A file, since Linux takes no argument of more than 128 KiB.
    file = Path(view.write[0]) / "plan.json"
    plan = Plan(module, argument, view, limits, offered.landlock > 0, offered.seccomp)
    plan.save(file)
    # -P: nothing in the working directory is imported.
    python = [sys.executable, "-P", "-m", "exporter.system.confined", str(file)]
    return [*bubblewrap.wrapped(offered.bwrap, view), *python] if offered.bwrap else python


def hide_process() -> None:
    """Keep this process's environment and memory from other processes of the same user."""
    with suppress(OSError):
        prctl(PR_SET_DUMPABLE, 0)
