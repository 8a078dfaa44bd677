"""A confined process, seen from inside and from outside, with every set of layers there is."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.system import limits as machine
from exporter.system.environment import minimal_environment
from exporter.system.limits import Limits
from exporter.system.sandbox import Confinement, confined_command, confinement, suited
from exporter.system.view import view

UNLIMITED = Limits()
PROBE = "tests.integration.exporter.confined_probe"
# Without bubblewrap as in a container; without Landlock as on an older kernel.
LAYERS = {
    "all": {},
    "without bubblewrap": {"bwrap": ""},
    "without Landlock": {"landlock": 0},
}


@pytest.fixture(params=LAYERS)
def offered(request: pytest.FixtureRequest) -> Confinement:
    here = confinement()
    left = dataclasses.replace(here, **LAYERS[request.param])
    if not left.complete:
        pytest.skip(f"this machine offers {here}, which is too little {request.param}")
    if request.param == "all" and not here.bwrap:
        pytest.skip("bubblewrap is not installed, or may not make namespaces here")
    return left


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    (folder / "tmp").mkdir(parents=True)
    return folder


def confined(
    offered: Confinement, scratch: Path, module: str, argument: str = "", limits: Limits = UNLIMITED
) -> list[str]:
    seen = view([Path(__file__).parents[3] / "tests"], [scratch, scratch / "tmp"])
    return confined_command(offered, seen, limits, module, argument)


def environment(scratch: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[3])
    return {"PATH": os.environ["PATH"], "TMPDIR": str(scratch / "tmp"), "PYTHONPATH": root}


def run(
    offered: Confinement, scratch: Path, code: str, limits: Limits = UNLIMITED
) -> subprocess.CompletedProcess[str]:
    (scratch / "given.py").write_text(code)
    return finished(confined(offered, scratch, "given", limits=limits), scratch, str(scratch))


def finished(command: list[str], scratch: Path, modules: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with modules from some folders."""
    return subprocess.run(
        command,
        env={**environment(scratch), "PYTHONPATH": modules},
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user with a secret in its environment, and nothing to protect it."""
    program = "import sys; print(end='', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, env={"TOKEN": "s3cret"}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nothing_of_the_user_is_within_reach(
    offered: Confinement, scratch: Path, tmp_path: Path
) -> None:
    secret, code = tmp_path / "home" / ".env", tmp_path / "cache" / "model.py"
    for path in (secret, code):
        path.parent.mkdir()
        path.write_text("s3cret")
    address = ctypes.create_string_buffer(8)
    with victim() as process, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "agent"))
        target = {
            "victim": process.pid,
            "parent": os.getpid(),
            "address": ctypes.addressof(address),
            "secret": str(secret),
            "code": str(code),
            "socket": str(tmp_path / "agent"),
        }
        done = subprocess.run(
            confined(offered, scratch, PROBE, json.dumps(target)),
            env=environment(scratch),
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.poll() is None
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
    assert [path.read_text() for path in (secret, code)] == ["s3cret"] * 2
    assert [path.name for path in code.parent.iterdir()] == ["model.py"]


def test_the_attacks_succeed_where_nothing_is_confined(scratch: Path, tmp_path: Path) -> None:
    """What the test above finds nothing of would be seen."""
    secret, code = tmp_path / "home" / ".env", tmp_path / "cache" / "model.py"
    for path in (secret, code):
        path.parent.mkdir()
        path.write_text("s3cret")
    with victim() as process:
        target = {
            "victim": process.pid,
            "parent": process.pid,
            "address": 0,
            "secret": str(secret),
            "code": str(code),
            "socket": str(tmp_path / "agent"),
        }
        program = (
            f"import sys; sys.argv[1:] = [{json.dumps(target)!r}]\n"
            f"from {PROBE} import ATTACKS, REFUSED\n"
            "wanted = sys.stdin.read().split('\\n')\n"
            "for name in wanted:\n"
            "    try: ATTACKS[name]()\n"
            "    except REFUSED: print(name)\n"
        )
        wanted = (
            *("read a secret", "read it through a link", "start a program", "start a process"),
            *("signal a process", "limit a process", "AF_INET socket", "outlive the parent"),
            *("change its mode and times", "cut code"),
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            input="\n".join(wanted),
            env=environment(scratch),
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_libraries_compute_in_it(offered: Confinement, scratch: Path) -> None:
    done = run(
        offered,
        scratch,
        "import joblib, numpy, onnxruntime\n"
        "from sklearn.ensemble import RandomForestRegressor\n"
        "x = numpy.random.default_rng(0).normal(size=(50, 3))\n"
        "model = RandomForestRegressor(4, n_jobs=2).fit(x, x[:, 0])\n"
        "assert model.predict(x @ numpy.eye(3)).shape == (50,)\n"
        "assert joblib.Parallel(2)(joblib.delayed(len)(w) for w in ('a', 'bc')) == [1, 2]\n",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("hidden", ["modules", "."])
def test_root_reads_what_is_another_users(scratch: Path, tmp_path: Path, hidden: str) -> None:
    here = confinement()
    if os.geteuid() != 0:
        pytest.skip("nothing can be given to another user here")
    if not dataclasses.replace(here, bwrap="").complete:
        pytest.skip(f"this machine offers {here}, which is too little without bubblewrap")
    others, private = tmp_path / "others", tmp_path / "private.txt"
    (others / "modules").mkdir(parents=True)
    (others / "modules" / "theirs.py").write_text("content = 7")
    private.write_text("s3cret")
    for path in (others / hidden, private):
        os.chown(path, 1000, 1000)
        path.chmod(0o750)
    (scratch / "given.py").write_text(
        f"import theirs\nprint(theirs.content)\nopen({str(private)!r}).read()"
    )
    seen = view([others / "modules", scratch], [scratch, scratch / "tmp"])
    suitable = suited(here, seen)
    assert (suitable.bwrap, suitable.landlock) == ("", here.landlock)
    command = confined_command(suitable, seen, UNLIMITED, "given", "")
    done = finished(command, scratch, f"{scratch}:{others / 'modules'}")
    assert done.stdout.splitlines()[-1:] == ["7"], done.stderr
    assert done.stderr.splitlines()[-1].startswith("PermissionError"), done.stderr


def test_a_view_that_is_readable_keeps_every_layer(scratch: Path) -> None:
    assert suited(confinement(), view([scratch], [scratch, scratch / "tmp"])) == confinement()


def test_its_plan_may_be_longer_than_an_argument(scratch: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{number:0200}" for number in range(600)]
    for file in files:
        file.touch()
    (scratch / "given.py").write_text(f"print(len(open({str(files[-1])!r}).read()))")
    seen = view([*files, scratch], [scratch, scratch / "tmp"])
    command = confined_command(confinement(), seen, UNLIMITED, "given", "")
    done = finished(command, scratch, str(scratch))
    assert done.stdout.splitlines()[-1:] == ["0"], done.stderr


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(data=1 << 30), "x = bytearray(3 << 30)"),
        (Limits(address_space=1 << 30), "import mmap; mmap.mmap(-1, 3 << 30)"),
        (Limits(file_size=1 << 20), "open('big', 'wb').write(bytes(2 << 20))"),
        (Limits(open_files=64), "kept = [open('given.py') for _ in range(200)]"),
    ],
    ids=["data", "address-space", "file", "descriptors"],
)
def test_the_machine_is_not_taken(scratch: Path, limits: Limits, code: str) -> None:
    done = run(confinement(), scratch, code, limits)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(("MemoryError", "OSError")), done.stderr


def test_libraries_have_room_on_many_cores_with_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "memory_of_machine", lambda: 4 << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    # OpenBLAS reserves 40 MiB for each thread, and has its stacks besides.
    assert machine.room_of_machine() > (4 << 30) + 64 * (48 << 20)
    assert [machine.threads_within(memory) for memory in (1, 4 << 30, 1 << 40)] == [1, 16, 64]
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert minimal_environment()["OPENBLAS_NUM_THREADS"] == "3"


def test_it_ends_with_a_parent_that_is_killed(offered: Confinement, scratch: Path) -> None:
    (scratch / "given.py").write_text("import time\nopen('started', 'w')\ntime.sleep(600)\n")
    command = confined(offered, scratch, "given", "much-unlike-others")
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        env={**environment(scratch), "PYTHONPATH": str(scratch)},
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until((scratch / "started").exists)
        assert _processes(scratch)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _wait_until(lambda: not _processes(scratch))
    finally:
        parent.kill()
        for pid in _processes(scratch):
            os.kill(pid, signal.SIGKILL)


def _processes(scratch: Path) -> list[int]:
    """Every process that has been told of a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(scratch).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def _wait_until(condition: object) -> None:
    for _ in range(1200):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to be within a minute")
