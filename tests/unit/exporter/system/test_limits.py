"""What says that the machine ran out of memory."""

from __future__ import annotations

from pathlib import Path

from exporter.system.limits import oom_kills


def test_kills_of_other_containers_do_not_count(tmp_path: Path) -> None:
    """A folder stands in for the kernel's files."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    assert oom_kills(tmp_path) == 0
    write("proc/vmstat", "pgfault 9\noom_kill 7\nnr_x 1\n")
    assert oom_kills(tmp_path) == 7
    write("proc/self/cgroup", "4:memory:/elsewhere\n0::/\n")
    assert oom_kills(tmp_path) == 7  # the root of a machine has no such file
    for folder in ("", "/system.slice/stlab"):
        write("proc/self/cgroup", f"4:memory:/elsewhere\n0::{folder or '/'}\n")
        events = "low 0\nhigh 0\nmax 40\noom 5\noom_kill 2\noom_group_kill 0\n"
        write(f"sys/fs/cgroup{folder}/memory.events", events)
        assert oom_kills(tmp_path) == 2
    (tmp_path / "sys/fs/cgroup/system.slice/stlab/memory.events").unlink()
    assert oom_kills(tmp_path) == 7
