"""Confines this process, and then runs a module in it: ``python -m exporter.system.confined PLAN``.

A thread confines itself and those that it starts, so this comes before anything else: numpy starts
threads when it is imported.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from pathlib import Path

from exporter.system import landlock, seccomp
from exporter.system.kernel import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, drop_capabilities, prctl
from exporter.system.limits import Limits

__all__ = ["READY"]

READY = '{"event": "confined"}'
"""The first line on stdout, once nothing of the plan is left to do."""


def _main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        raise SystemExit("this process has threads already, which would not be confined")
    # It has no use without its parent, however that ended.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    Limits(**plan["limits"]).apply()
    if plan["landlock"]:
        landlock.restrict_files(
            read=plan["read"],
            listed=plan["listed"],
            write=plan["write"],
            devices=plan["devices"],
        )
    # Even where nothing else is confined: root could read its parent's secrets with them.
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities()
    if plan["seccomp"]:
        seccomp.filter_calls()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    sys.argv[1:] = [plan["argument"]]
    runpy.run_module(plan["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
