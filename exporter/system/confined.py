"""Confine this process, then run a module in it: ``python -m exporter.system.confined PLAN``.

A thread confines itself and the threads that it starts, so this runs before anything else: numpy
starts threads when it is imported.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from exporter.system import landlock, seccomp
from exporter.system.kernel import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, drop_capabilities, prctl
from exporter.system.limits import Limits
from exporter.system.view import View

__all__ = ["READY", "Plan"]

READY = '{"event": "confined"}'
"""The first line on stdout, once the whole plan is in force."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a module of stlab runs as a process of its own, with one argument.

    Attributes:
        landlock: Whether Landlock keeps it to its view.
        seccomp: Whether its system calls are filtered.
    """

    module: str
    argument: str
    view: View
    limits: Limits
    landlock: bool
    seccomp: bool

    def save(self, path: Path) -> None:
        """Write the plan for `load`."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan."""
        fields = json.loads(path.read_text())
        view, limits = View(**fields.pop("view")), Limits(**fields.pop("limits"))
        return cls(**fields, view=view, limits=limits)


def _main() -> None:
    plan = Plan.load(Path(sys.argv[1]))
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        raise SystemExit("this process has threads already, which would not be confined")
    # It has no use without its parent, however that ended.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    plan.limits.apply()
    # Landlock and seccomp need it; without them it still keeps root from its parent's secrets.
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if plan.landlock:
        landlock.restrict_files(plan.view)
    drop_capabilities()
    if plan.seccomp:
        seccomp.filter_calls()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    sys.argv[1:] = [plan.argument]
    runpy.run_module(plan.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
