from __future__ import annotations

import subprocess
import sys

from exporter.processes import is_gone, process_mark


def test_a_process_is_gone_once_it_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(child.pid)
    assert not is_gone(mark)
    child.communicate(b"\n")
    assert is_gone(mark)
    assert process_mark(child.pid) == ""


def test_this_process_is_there() -> None:
    assert process_mark()
    assert not is_gone(process_mark())


def test_another_process_under_the_same_number_is_another() -> None:
    machine, pid, start = process_mark().split("/")
    assert is_gone(f"{machine}/{pid}/{int(start) + 1}")


def test_of_other_machines_nothing_is_known() -> None:
    _, pid, start = process_mark().split("/")
    assert not is_gone(f"elsewhere-1/{pid}/{int(start) + 1}")
    assert not is_gone("")
    assert not is_gone("nonsense")
