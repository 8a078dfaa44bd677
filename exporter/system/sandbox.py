"""Keeps foreign code to itself: what this machine offers for that, and how a process gets it.

Two layers, each of which is enough for files: bubblewrap's namespaces around the process, and
Landlock inside it. A filter of system calls is part of both.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.system import bubblewrap, landlock, seccomp
from exporter.system.kernel import PR_SET_DUMPABLE, prctl

if TYPE_CHECKING:
    from exporter.system.limits import Limits
    from exporter.system.view import View

__all__ = ["Confinement", "Plan", "confined_command", "confinement", "hide_process", "suited"]

_PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What this machine offers.

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
        layers = (
            "bubblewrap" if self.bwrap else "",
            f"Landlock {self.landlock}" if self.landlock else "",
            "seccomp" if self.seccomp else "",
        )
        return ", ".join(filter(None, layers)) or "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a module of ours is run as a process; see `exporter.system.confined`.

    Attributes:
        module: The module, as ``python -m`` takes it.
        argument: Its argument.
        read: Files and folders that it may read.
        listed: Folders of which it may see the names below.
        write: Folders that it may change.
        devices: Device files that it may use.
        limits: What it may take of the machine.
        landlock: Whether Landlock keeps it to those files.
        seccomp: Whether its system calls are filtered.
    """

    module: str
    argument: str
    read: tuple[str, ...]
    listed: tuple[str, ...]
    write: tuple[str, ...]
    devices: tuple[str, ...]
    limits: Limits
    landlock: bool
    seccomp: bool

    def as_json(self) -> str:
        """Return the plan as the process reads it."""
        return json.dumps(asdict(self))


def confinement() -> Confinement:
    """Return what this machine offers; what was found out is kept."""
    return _found(os.environ.get("PATH", ""))


@functools.cache
def _found(path: str) -> Confinement:  # noqa: ARG001 - where bwrap is looked for
    return Confinement(bubblewrap.find(), landlock.version(), seccomp.is_supported())


def suited(offered: Confinement, view: View) -> Confinement:
    """Return the layers that leave a view readable: bubblewrap does not, where files are others'.

    Without it there is still Landlock; where there is none, nothing changes.
    """
    without = replace(offered, bwrap="")
    if offered.bwrap and without.complete and not bubblewrap.shows(offered.bwrap, view):
        return without
    return offered


def confined_command(
    offered: Confinement, view: View, limits: Limits, module: str, argument: str
) -> list[str]:
    """Return the command line that runs a module of ours, kept to its view.

    Args:
        offered: The layers to use.
        view: What there is for it; the first folder that it may change is the one that it is in,
            and gets a file that says all this.
        limits: What it may take.
        module: The module.
        argument: Its argument.
    """
    plan = Plan(
        module,
        argument,
        (*view.read, *view.proc),
        view.listed,
        view.write,
        view.devices,
        limits,
        offered.landlock > 0,
        offered.seccomp,
    )
    # Linux takes no argument of more than 128 KiB.
    file = Path(view.write[0]) / _PLAN
    file.write_text(plan.as_json())
    # -P: nothing in the working directory is imported.
    python = [sys.executable, "-P", "-m", "exporter.system.confined", str(file)]
    if not offered.bwrap:
        return python
    return [*bubblewrap.wrapped(offered.bwrap, view), *python]


def hide_process() -> None:
    """Keep this process's environment and memory from other processes of the same user."""
    with suppress(OSError):
        prctl(PR_SET_DUMPABLE, 0)
