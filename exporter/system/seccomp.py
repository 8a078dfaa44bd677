"""A filter of system calls for a process that runs foreign code, and for its threads.

The process keeps what computing needs: memory, threads, the files that it may open. It gets no
socket, starts no other process or program, and cannot inspect, signal or change another one. Calls
that set modes, owners and times of files succeed without effect: Landlock has no right for them,
and libraries set them on copies.

Sources: the kernel's seccomp_filter documentation and its tables of system calls
(arch/x86/entry/syscalls/syscall_64.tbl, scripts/syscall.tbl); the list of what Docker's default
profile refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

from exporter.system.kernel import PR_SET_PDEATHSIG, prctl

__all__ = ["filter_calls", "is_supported"]

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 21, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST = 0x15, 0x35
# In struct seccomp_data, on machines that store the low half of a number first.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# The number on x86_64 and on aarch64; -1 where there is no such call.
_CALLS = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "socketpair": (53, 199),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261), "prctl": (157, 167),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "fork": (57, -1), "vfork": (58, -1), "clone": (56, 220),
    "clone3": (435, 435), "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97),
    "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428),
    "open_tree_attr": (467, 467), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "inotify_add_watch": (254, 27), "vhangup": (153, 58),
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "truncate": (76, 45),
    "open": (2, -1), "openat": (257, 56), "openat2": (437, 437), "fcntl": (72, 25),
    "ioctl": (16, 29),
}  # fmt: skip

# Where these are unknown, libraries use an older call, whose arguments a filter can read.
_UNKNOWN = frozenset({"clone3", "openat2"})
_WITHOUT_EFFECT = frozenset(
    {"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
     "utime", "utimes", "futimesat", "utimensat"}
)  # fmt: skip


class _Argument(NamedTuple):
    """The argument whose value decides whether a call is allowed, or refused."""

    position: int
    mask: int
    values: tuple[int, ...]
    allowed: bool


_CLONE_THREAD, _SOCK_STREAM, _WHOLE = 0x10000, 1, 0xFFFFFFFF
_O_TRUNC, _O_ACCMODE = 0x200, 3
_F_SETOWN, _F_SETOWN_EX = 8, 15
_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C


def is_supported() -> bool:
    """Whether this kernel takes filters, and this module has the machine's numbers of the calls."""
    try:
        prctl(_PR_GET_SECCOMP)
    except OSError:
        return False
    return platform.machine() in _MACHINES


def filter_calls() -> None:
    """Refuse those calls to this thread and to those that it starts from here on, for good.

    The process has set ``PR_SET_NO_NEW_PRIVS``.

    Raises:
        OSError: The kernel or the machine does not offer it.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system call filter for {platform.machine()}")
    code = _program(*_MACHINES[platform.machine()])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program))


def _arguments() -> dict[str, _Argument]:
    me = os.getpid()
    # Before ABI 3, Landlock lets a process truncate a file that it may only read.
    cut = (_O_TRUNC, _O_TRUNC | _O_ACCMODE)
    # These make the kernel signal another process, or type into another terminal.
    reaching = (_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX)
    return {
        "clone": _Argument(0, _CLONE_THREAD, (_CLONE_THREAD,), allowed=True),
        # A pair of datagram sockets could be connected to somewhere else.
        "socketpair": _Argument(1, 0xF, (_SOCK_STREAM,), allowed=True),
        "kill": _Argument(0, _WHOLE, (me,), allowed=True),
        "tgkill": _Argument(0, _WHOLE, (me,), allowed=True),
        "prlimit64": _Argument(0, _WHOLE, (0, me), allowed=True),
        "prctl": _Argument(0, _WHOLE, (PR_SET_PDEATHSIG,), allowed=False),
        "open": _Argument(1, _O_TRUNC | _O_ACCMODE, cut, allowed=False),
        "openat": _Argument(2, _O_TRUNC | _O_ACCMODE, cut, allowed=False),
        "fcntl": _Argument(1, _WHOLE, (_F_SETOWN, _F_SETOWN_EX), allowed=False),
        "ioctl": _Argument(1, _WHOLE, reaching, allowed=False),
    }


def _program(column: int, architecture: int) -> bytes:
    """Return the filter as the kernel reads it."""
    arguments = _arguments()
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    # Those that a program makes often are compared first.
    for name in (*arguments, *sorted(_CALLS.keys() - arguments)):
        number = _CALLS[name][column]
        if number >= 0:
            block = _answer(name, arguments.get(name))
            instructions += [(_JUMP_IF_EQUAL, 0, len(block), number), *block]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def _answer(name: str, argument: _Argument | None) -> list[tuple[int, int, int, int]]:
    unknown = errno.ENOSYS if name in _UNKNOWN else errno.EACCES
    refused = _ERRNO | (0 if name in _WITHOUT_EFFECT else unknown)
    if argument is None:
        return [(_RETURN, 0, 0, refused)]
    found, others = (_ALLOW, refused) if argument.allowed else (refused, _ALLOW)
    block = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument.position), (_AND, 0, 0, argument.mask)]
    for value in argument.values:
        block += [(_JUMP_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, found)]
    return [*block, (_RETURN, 0, 0, others)]
