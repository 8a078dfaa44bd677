"""What a confined process sees of the file system: what Python and its libraries need."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
_IMPORTABLE = frozenset({".py", ".so", ".dist-info", ".egg-info"})
# What processes read of the kernel, /proc/self aside; nothing of other processes.
_PROC = (
    "self", "cpuinfo", "devices", "driver", "filesystems", "loadavg", "meminfo", "modules", "stat",
    "sys", "uptime", "version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """What there is for a confined process.

    Attributes:
        read: Files and folders.
        write: Folders that it may change.
        devices: Device files, those of GPUs among them.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def gpus(self) -> tuple[str, ...]:
        """The device files of GPUs."""
        return tuple(path for path in self.devices if path not in _DEVICES)

    @property
    def proc(self) -> tuple[str, ...]:
        """What there is of /proc."""
        return tuple(f"/proc/{name}" for name in _PROC)


def view(read: Iterable[Path], write: Iterable[Path]) -> View:
    """Return a view with the interpreter, its libraries and the GPUs.

    Args:
        read: Further files and folders.
        write: Folders that may be changed.
    """
    gpus = [str(path) for pattern in _GPUS for path in Path("/dev").glob(pattern)]
    found = (*map(Path, _SYSTEM), *libraries(), *read)
    return View(
        tuple(dict.fromkeys(str(path.absolute()) for path in found if path.exists())),
        tuple(str(path.absolute()) for path in write),
        (*_DEVICES, *gpus),
    )


def libraries() -> tuple[Path, ...]:
    """Return the folders and files that Python imports from.

    Of a folder on the path that is no installation, such as the root of a project, there are the
    packages and modules alone: next to them are its settings, its secrets and its data.
    """
    paths = sysconfig.get_paths()
    installed = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    installed |= {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots = {Path(path) for path in installed} | {Path(path).resolve() for path in installed}
    # Where the interpreter really is, with the libraries that it brings.
    roots.add(Path(sys.executable).resolve().parent.parent)
    roots |= set(_absolute(os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    others = (entry for entry in _absolute(sys.path) if not roots & {entry, *entry.parents})
    importable = [path for entry in others for path in _importable(entry)]
    return (*sorted(roots), *importable, *_mapped())


def _importable(entry: Path) -> Iterator[Path]:
    if entry.name in _INSTALLATIONS or entry.is_file():
        yield entry
        return
    for found in entry.iterdir() if entry.is_dir() else ():
        if (found / "__init__.py").is_file() or found.suffix in _IMPORTABLE:
            yield found


def _mapped() -> Iterator[Path]:
    """Yield the packages that setuptools' finders for editable installs know."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("__editable__"):
            for path in map(Path, getattr(module, "MAPPING", {}).values()):
                yield path if path.exists() else path.with_suffix(".py")


def _absolute(paths: Iterable[str]) -> Iterator[Path]:
    return (path for path in map(Path, paths) if path.is_absolute() and path != Path("/"))
