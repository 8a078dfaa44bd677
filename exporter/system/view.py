"""The files that a confined process may use: what Python and its libraries need."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["View", "libraries", "view"]

_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
    "/etc/alternatives", "/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/timezone",
    # What hardware there is, such as the number of cores.
    "/sys/bus", "/sys/class", "/sys/devices", "/sys/module",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPUS = ("nvidia*", "nvhost*", "nvmap", "dxg")
_INSTALLATIONS = frozenset({"site-packages", "dist-packages"})
_LIBRARIES = frozenset({"lib", "lib32", "lib64"})
# Of a virtual environment.
_ENVIRONMENT = ("bin", "etc", "include", "lib", "lib32", "lib64", "share", "pyvenv.cfg")
_IMPORTABLE = frozenset({".py", ".so", ".dist-info", ".egg-info"})
_MANY = 256
# What only another project, or an environment, has in it.
_ELSEWHERE = frozenset({".git", "pyvenv.cfg"})
# The password of a package index may be in it.
_SETTINGS = "pip.conf"
# What processes read of the kernel, /proc/self aside; nothing of other processes.
_PROC = (
    "self", "cpuinfo", "devices", "driver", "filesystems", "loadavg", "meminfo", "modules", "stat",
    "sys", "uptime", "version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """The files that a confined process may use.

    Attributes:
        read: Files and folders that it may read.
        listed: Folders that it may list, without reading what is in them.
        write: Folders that it may change.
        devices: Device files, including those of GPUs.
    """

    read: tuple[str, ...]
    listed: tuple[str, ...]
    write: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def gpus(self) -> tuple[str, ...]:
        """The device files of GPUs."""
        return tuple(path for path in self.devices if path not in _DEVICES)

    @property
    def proc(self) -> tuple[str, ...]:
        """The parts of /proc that it may read."""
        return tuple(f"/proc/{name}" for name in _PROC)


def view(read: Iterable[Path], write: Iterable[Path]) -> View:
    """Return a view with the interpreter, its libraries and the GPUs, and with these paths."""
    gpus = [str(path) for pattern in _GPUS for path in Path("/dev").glob(pattern)]
    found = (*map(Path, _SYSTEM), *libraries(), *read)
    return View(
        tuple(dict.fromkeys(str(path.absolute()) for path in found if os.access(path, os.R_OK))),
        # Python lists a folder to find modules.
        tuple(str(path) for path in _projects() if path.is_dir()),
        tuple(str(path.absolute()) for path in write),
        (*_DEVICES, *gpus),
    )


def libraries() -> tuple[Path, ...]:
    """Return the folders and files that Python imports from.

    Of a folder on Python's path that is no installation, such as the root of a project, these are
    its packages and modules only: settings, secrets and data are next to them.
    """
    installed = [path for root in sorted(_installed()) for path in _without_settings(root)]
    return (*installed, *(path for root in _projects() for path in _modules(root)), *_mapped())


def _installed() -> set[Path]:
    """Return the folders of installations, which hold nothing but what is imported or run."""
    paths = sysconfig.get_paths()
    names = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    names |= {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots = {Path(path) for path in names} | {Path(path).resolve() for path in names}
    # Where the interpreter really is, with the libraries that it brings.
    roots.add(Path(sys.executable).resolve().parent.parent)
    roots |= set(_absolute(os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    roots |= {path for path in _absolute(sys.path) if path.name in _INSTALLATIONS}
    roots |= set(_linked())
    return {part for root in roots - {Path("/")} for part in _parts(root)}


def _parts(root: Path) -> Iterable[Path]:
    """Return the parts of an installation; a project's root may be a virtual environment."""
    return [root / name for name in _ENVIRONMENT] if (root / "pyvenv.cfg").is_file() else [root]


def _linked() -> Iterator[Path]:
    """Yield the folders that the system's linker searches, and those of the libraries in use."""
    for file in Path("/etc/ld.so.conf.d").glob("*.conf"):
        with suppress(OSError):
            yield from _absolute(file.read_text(errors="replace").splitlines())
    with suppress(OSError):
        maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
        used = {Path(line.split(maxsplit=5)[-1]) for line in maps if ".so" in line}
        # A module of a project is in no such folder: its neighbours are not libraries.
        yield from _absolute(
            str(path.parent if path.parent.name in _LIBRARIES else path) for path in used
        )


def _projects() -> list[Path]:
    """Return the other entries of Python's path: roots of projects, and archives."""
    installed = _installed()
    projects = dict.fromkeys(_absolute(sys.path))
    return [path for path in projects if not installed & {path, *path.parents}]


def _without_settings(root: Path) -> Iterator[Path]:
    if (root / _SETTINGS).exists():
        yield from (path for path in root.iterdir() if path.name != _SETTINGS)
    else:
        yield root


def _modules(project: Path) -> Iterator[Path]:
    if project.is_file():
        yield project
    for found in project.iterdir() if project.is_dir() else ():
        if found.suffix in _IMPORTABLE:
            yield found
        elif _is_package(found):
            yield from _without_hidden(found)


def _is_package(folder: Path) -> bool:
    """Whether modules are in a folder, or one level below as in a namespace package."""
    return not folder.name.startswith(".") and any(
        any(folder.glob(pattern)) for pattern in ("*.py", "*/*.py")
    )


def _without_hidden(path: Path, depth: int = 2) -> list[Path]:
    """Return a package, or its parts where a hidden file such as ``.env`` is in it."""
    if depth == 0 or not path.is_dir():
        return [path]
    try:
        children = [*path.iterdir()]
    except OSError:
        return []  # another user's
    if _ELSEWHERE & {child.name for child in children}:
        return []
    visible = [child for child in children if not child.name.startswith(".")]
    parts = [part for child in visible for part in _without_hidden(child, depth - 1)]
    if parts == children:
        return [path]
    if len(parts) > _MANY:
        # Each would be an entry of its own, and so many files are data.
        return [part for part in parts if part.suffix in _IMPORTABLE or part.is_dir()]
    return parts


def _mapped() -> Iterator[Path]:
    """Yield the packages of setuptools' editable installs."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("__editable__"):
            for path in map(Path, getattr(module, "MAPPING", {}).values()):
                yield from _without_hidden(path if path.exists() else path.with_suffix(".py"))


def _absolute(paths: Iterable[str]) -> Iterator[Path]:
    return (
        path
        for path in map(Path, paths)
        if path.is_absolute() and path != Path("/") and os.access(path, os.R_OK)
    )
