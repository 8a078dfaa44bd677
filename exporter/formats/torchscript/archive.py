"""Writes a script as a reproducible archive, and runs one here.

torch's own archive of one script differs from process to process: classes are numbered by how many
existed before, and every line of code comes with its place on the disk.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from exporter.arrays import Array, Arrays
from exporter.interface import Interface

__all__ = ["load_archive", "write_archive", "write_identity"]

_CODE = "code/"
_NUMBER = re.compile(r"\.___torch_mangle_(\d+)")
_CLASS = re.compile(r"class (\w+)\(Module\)")
_FINALS = re.compile(r"(?m)(?:^ +\w+ : Final\[.*\n)+")
_NAME = re.compile(r"__torch__(?:\.\w+)*")
_PICKLED = re.compile(rb"c(__torch__[\w.]*)\n(\w+)\n")
# What it was traced with, and what torch writes by itself.
_LEFT_OUT = re.compile(r"traced_inputs.*|\.data/.*|version|byteorder|.*\.debug_pkl")


def write_archive(script: torch.jit.ScriptModule, path: Path) -> None:
    """Write a script; the same one gives the same bytes."""
    raw = path.with_name(f"{path.name}.raw")
    try:
        torch.jit.save(script, str(raw))
        reader = torch._C.PyTorchFileReader(str(raw))  # noqa: SLF001
        names = sorted(n for n in reader.get_all_records() if not _LEFT_OUT.fullmatch(n))
        changed = _with_own_numbers(
            {n: reader.get_record(n) for n in names if n.startswith(_CODE) or n.endswith(".pkl")}
        )
        writer = torch._C.PyTorchFileWriter(str(path))  # noqa: SLF001
        version = ".data/version" if reader.has_record(".data/version") else "version"
        writer.set_min_version(int(reader.get_record(version)))
        for name in sorted({*changed, *(n for n in names if not n.startswith(_CODE))}):
            content = changed[name] if name in changed else reader.get_record(name)
            writer.write_record(name, content, len(content))
        byteorder = reader.get_record("byteorder")
        writer.write_record("byteorder", byteorder, len(byteorder))
        writer.write_end_of_file()
        del reader
    finally:
        raw.unlink(missing_ok=True)


def load_archive(path: Path, interface: Interface) -> Callable[[Arrays], dict[str, Array]]:
    """Return a function that runs an archive on the CPU."""
    script = torch.jit.load(str(path), map_location="cpu")

    def run(inputs: Arrays) -> dict[str, Array]:
        given = [torch.tensor(inputs[tensor.name]) for tensor in interface.inputs]
        with torch.inference_mode():
            found = script(*(tensor if tensor.dim() else tensor[None] for tensor in given))
        leaves = (found,) if isinstance(found, torch.Tensor) else found
        return {
            tensor.name: (leaf if tensor.axes else leaf[0]).contiguous().numpy()
            for tensor, leaf in zip(interface.outputs, leaves, strict=True)
        }

    return run


def write_identity(stream: BinaryIO) -> None:
    """Write a script that returns its input."""
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Identity()), stream)


def _with_own_numbers(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """Number the classes of an archive by themselves, each in a file of its own."""
    kept: dict[str, str] = {}
    classes: dict[str, str] = {}
    for record, content in records.items():
        if not record.startswith(_CODE):
            continue
        place = record.removeprefix(_CODE).removesuffix(".py").replace("/", ".")
        for chunk in re.split(r"(?m)^(?=\S)", content.decode()):
            if found := _CLASS.match(chunk):
                classes[f"{place}.{found.group(1)}"] = _FINALS.sub(_in_order, chunk)
            else:
                kept[record] = kept.get(record, "") + chunk
    names = _numbered(classes)
    pickles = {name: content for name, content in records.items() if not name.startswith(_CODE)}
    if any(p.count(b"__torch__") != len(_PICKLED.findall(p)) for p in pickles.values()):
        return dict(records)  # a name inside a string, whose length is written before it

    def renamed(code: str) -> str:
        return _NAME.sub(lambda match: _renamed(match.group(), names), code)

    def pickled(match: re.Match[bytes]) -> bytes:
        name = _renamed(f"{match.group(1).decode()}.{match.group(2).decode()}", names)
        module, _, own = name.rpartition(".")
        return f"c{module}\n{own}\n".encode()

    result = {record: renamed(code).encode() for record, code in kept.items() if code.strip()}
    for name, chunk in classes.items():
        module = names[name].rpartition(".")[0]
        result[f"{_CODE}{module.replace('.', '/')}.py"] = renamed(chunk).encode()
    return result | {name: _PICKLED.sub(pickled, content) for name, content in pickles.items()}


def _in_order(finals: re.Match[str]) -> str:
    """Sort constants, which torch keeps in a set."""
    return "".join(sorted(finals.group().splitlines(keepends=True)))


def _numbered(classes: Mapping[str, str]) -> dict[str, str]:
    """Return a new name for every class: those that are called alike get 0, 1, 2 in their order."""

    def number(name: str) -> int:
        found = _NUMBER.search(name)
        return int(found.group(1)) if found else -1

    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for name in sorted(classes, key=number):
        plain = _NUMBER.sub("", name)
        names[name] = f"{plain}.___torch_mangle_{counts[plain]}.{plain.rpartition('.')[2]}"
        counts[plain] += 1
    return names


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Rename a class, or what belongs to one."""
    head, tail = name, ""
    while head not in names:
        head, dot, last = head.rpartition(".")
        if not dot:
            return name
        tail = f".{last}{tail}"
    return names[head] + tail
