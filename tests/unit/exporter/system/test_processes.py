from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

from exporter.system.processes import ProcessId


def test_this_process_is_there() -> None:
    here = ProcessId.this_process()
    assert not here.has_died()
    assert ProcessId.read(here.as_dict()) == here


def test_a_process_that_has_ended_has_died() -> None:
    code = (
        "import json, sys; from exporter.system.processes import ProcessId; "
        "print(json.dumps(ProcessId.this_process().as_dict()), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    mark = child.stdout.readline()
    holder = ProcessId.read(json.loads(mark))
    assert not holder.has_died()
    child.communicate()
    assert holder.has_died()


def test_another_process_under_the_same_number_is_another() -> None:
    here = ProcessId.this_process()
    assert replace(here, started=here.started + "1").has_died()


def test_of_other_machines_and_nonsense_nothing_is_known() -> None:
    here = ProcessId.this_process()
    assert not replace(here, host="elsewhere", pid=2**22 + 1).has_died()
    assert not ProcessId.read({}).has_died()
    assert not ProcessId.read({"pid": "nonsense"}).has_died()
