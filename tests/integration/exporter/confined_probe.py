"""Runs inside a confined process: tries what it must not be able to do, and prints what it could.

The argument names what there is to attack: files, processes and sockets of the same user.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
# Of x86_64; the other numbers of these calls are the same everywhere.
PIDFD_OPEN, PIDFD_GETFD, IO_URING_SETUP, MQ_OPEN, KEYCTL, BPF = 434, 438, 425, 240, 250, 321
TARGET = json.loads(sys.argv[1])
VICTIM, SECRET, CODE = TARGET["victim"], Path(TARGET["secret"]), Path(TARGET["code"])


def call(number: int, *arguments: object) -> int:
    """Call the kernel, past the C library."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def libc(name: str, *arguments: object) -> int:
    result: int = getattr(LIBC, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def processes() -> list[int]:
    """Every process but this one that a number can be found for."""
    found = {VICTIM, TARGET["parent"]}
    with suppress(OSError):
        found |= {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    return sorted(found - {os.getpid()})


def secret_of_a_process() -> None:
    for pid in processes():
        for name in ("environ", "mem", "maps", "fd", "cwd/.env", "root/etc/shadow"):
            path = Path(f"/proc/{pid}/{name}")
            if name == "fd":
                [*path.iterdir()]
            elif name == "mem":
                os.close(os.open(path, os.O_RDONLY))
            elif b"s3cret" not in path.read_bytes():
                raise OSError("nothing to see")


def of_each_process(attack: Callable[[int], object]) -> Callable[[], None]:
    def attempt() -> None:
        problem: OSError | None = None
        for pid in processes():
            try:
                attack(pid)
            except OSError as error:
                problem = error
            else:
                return
        raise problem or OSError("no process")

    return attempt


def borrow_descriptor(pid: int) -> None:
    call(PIDFD_GETFD, call(PIDFD_OPEN, pid, 0), 0, 0)


def read_memory(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(TARGET["address"], 8)
    libc("process_vm_readv", pid, local, 1, remote, 1, 0)


def through_a_link() -> None:
    Path("link").symlink_to(SECRET)
    Path("link").read_text()


def datagram_to_a_socket() -> None:
    for family in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        left, _ = socket.socketpair(socket.AF_UNIX, family)
        left.sendto(b"x", TARGET["socket"])


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def cut() -> None:
    os.close(os.open(CODE, os.O_RDONLY | os.O_TRUNC))


def change_times() -> None:
    before = CODE.stat()
    os.utime(CODE, (1, 1))
    CODE.chmod(0o777)
    after = CODE.stat()
    if (after.st_mtime, after.st_mode) == (before.st_mtime, before.st_mode):
        raise OSError("nothing changed")


ATTACKS: dict[str, Callable[[], object]] = {
    "read a secret": SECRET.read_text,
    "list its folder": lambda: [*SECRET.parent.iterdir()],
    "read it through a link": through_a_link,
    "read it through another name": lambda: os.link(SECRET, "hard"),
    "write code": lambda: CODE.write_text("x"),
    "cut code": cut,
    "cut code by name": lambda: os.truncate(CODE, 0),
    "remove code": CODE.unlink,
    "replace code": lambda: CODE.rename("moved"),
    "change its mode and times": change_times,
    "write a file next to it": lambda: (CODE.parent / "new.py").write_text("x"),
    # Opened, not written: should the attack succeed, nothing is damaged.
    "write a library": lambda: os.open(os.__file__, os.O_WRONLY),
    "write a setting of the kernel": lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "write shared memory": lambda: Path("/dev/shm/new").write_text("x"),
    "read a process": secret_of_a_process,
    "trace a process": of_each_process(lambda pid: libc("ptrace", 0x4206, pid, 0, 0)),
    "borrow a descriptor": of_each_process(borrow_descriptor),
    "read memory": of_each_process(read_memory),
    "signal a process": of_each_process(lambda pid: os.kill(pid, 0)),
    "signal all processes": lambda: os.kill(-1, 0),
    "limit a process": of_each_process(lambda pid: libc("prlimit", pid, 7, 0, b"\0" * 16)),
    "outlive the parent": lambda: libc("prctl", 1, 0, 0, 0, 0),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "become a program": lambda: os.execv("/nowhere/true", ["true"]),
    "start a process": fork,
    "new namespaces": lambda: libc("unshare", 0x10000000),
    "mount": lambda: libc("mount", b"none", b"own", b"tmpfs", 0, None),
    "io_uring": lambda: call(IO_URING_SETUP, 1, ctypes.create_string_buffer(256)),
    "keys": lambda: call(KEYCTL, 0, -3, 0),
    "System V memory": lambda: libc("shmget", 1, 8, 0o1600),
    "datagrams": datagram_to_a_socket,
    **{
        f"{family.name} socket": lambda family=family: socket.socket(family)
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK)
    },
}
# What refuses an attack may also be that there is nothing of the kind.
REFUSED = (OSError, subprocess.CalledProcessError)


def what_computing_takes() -> None:
    """Do what a model and its libraries need."""
    Path("own/deep").mkdir(parents=True)
    Path("own/file").write_text("x")
    shutil.copy2("own/file", "own/deep/copy")
    Path("own/deep/copy").replace("own/moved")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    thread = threading.Thread(target=Path("own/thread").touch)
    thread.start()
    thread.join()
    left, right = socket.socketpair()
    left.sendall(b"pipes work")
    assert right.recv(10) == b"pipes work"
    signal.raise_signal(signal.SIGCONT)
    assert os.cpu_count()
    assert Path("/proc/self/maps").read_text()
    assert Path("/proc/meminfo").read_text()
    os.urandom(8)


def main() -> None:
    what_computing_takes()
    done = {}
    for name, attack in ATTACKS.items():
        try:
            done[name] = repr(attack())
        except REFUSED:
            continue
    sys.stdout.write(f"{json.dumps(done)}\n")


if __name__ == "__main__":
    main()
