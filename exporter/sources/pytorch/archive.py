"""Loads a pt2 archive after a look into it.

``torch.export.load`` unpickles what it finds in several places of the archive: the sample inputs,
old-style weights, constants of unusual kinds (torch/export/pt2_archive/_package.py,
``deserialize_torch_artifact`` in torch/_export/serde/serialize.py). It looks operators up by
dotted name under ``torch`` and parses symbolic sizes with sympy, which evaluates them. Each of
these runs code of the archive's author, so each is checked here first, without running anything.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

from exporter.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch.export import ExportedProgram

__all__ = ["load_program"]

_OPERATOR = re.compile(
    r"torch\.ops\.(?P<space>aten|prims|quantized|quantized_decomposed)\."
    r"(?P<name>[A-Za-z0-9_]+)\.(?P<overload>[A-Za-z0-9_]+)"
    # Those whose bodies are graphs of the same archive, checked like it.
    r"|torch\.ops\.higher_order\.(cond|map|map_impl|while_loop|scan|associative_scan|wrap|"
    r"wrap_with_set_grad_enabled|wrap_with_autocast|strict_mode)"
    r"|_operator\.[a-z_]+|operator\.[a-z_]+|math\.[a-z0-9_]+|torch\.sym_[a-z_]+"
)
# Tensor operators all the same, that read and write files or swap memory under a tensor.
_NOT_ARITHMETIC = frozenset({"from_file", "save", "set_", "set_data"})
_EXPRESSION = re.compile(r"[A-Za-z0-9_ +\-*/%(),.<>=!&|~\[\]']*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_EXPRESSION_WORD = re.compile(
    r"[suz]\d+|zuf\d+|u?f\d+|Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|PythonMod|CleanDiv|"
    r"FloorDiv|CeilDiv|CeilToInt|FloorToInt|IntTrueDiv|FloatTrueDiv|PowByNatural|FloatPow|"
    r"ModularIndexing|Where|Max|Min|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|StrictGreaterThan|"
    r"StrictLessThan|GreaterThan|LessThan|Equality|Unequality|Identity|ToFloat|TruncToInt|"
    r"positive|nonnegative|negative|nonpositive|nonzero|zero|integer|real|finite|commutative|"
    r"RoundToInt|RoundDecimal|LShift|RShift|BitwiseFn_bitwise_and|BitwiseFn_bitwise_or|"
    r"OpaqueUnaryFn_[a-z0-9]+|int_oo|oo|True|False|true|false"
)


def load_program(path: Path) -> ExportedProgram:
    """Check an archive and load its program.

    Raises:
        ValidationFailed: The archive is unreadable, or something in it is not plain data; the
            entry is named.
    """
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        # Torch's own reader: another one might see other entries in the same bytes.
        archive = PT2ArchiveReader(str(path))
        for name in archive.get_file_names():
            _audit_entry(name, archive)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not torch.export.load, which falls back to an older and less careful format.
            return load_pt2(str(path)).exported_programs["model"]
    except ValidationFailed:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ValidationFailed(
            f"{path.name} cannot be read as a torch.export archive: "
            f"{reason[0] if reason else type(error).__name__}",
            hint="Log the model again with this release of torch; the file is damaged or too old.",
            kind="artifact",
        ) from error


def _audit_entry(name: str, archive: PT2ArchiveReader) -> None:
    if name.startswith("data/aotinductor/"):
        _unsafe(name, "holds compiled machine code")
    elif name.startswith(("data/constants/custom_obj", "data/constants/opaque_obj")):
        _unsafe(name, "is a pickled object")
    elif name.startswith("data/") and name.endswith(".pt"):
        _audit_pickle(name, archive.read_bytes(name))
    elif name.startswith("data/") and name.endswith("_config.json"):
        folder = name.rpartition("/")[0]
        for entry in json.loads(archive.read_bytes(name))["config"].values():
            held = f"{folder}/{entry['path_name']}"
            if "custom_obj" in held or "opaque_obj" in held:
                _unsafe(held, "is a pickled object")
            if entry.get("use_pickle"):
                _audit_pickle(held, archive.read_bytes(held))
    elif name.startswith("models/"):
        _audit_graph(name, json.loads(archive.read_bytes(name)))


def _audit_pickle(name: str, content: bytes) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # noqa: BLE001 - what the restricted unpickler dislikes
        _unsafe(name, "holds more than tensors; loading it would run code that it carries")


def _audit_graph(name: str, program: object) -> None:
    for key, value in _strings(program):
        if key == "target" and not _is_arithmetic(value):
            _unsafe(name, f"calls {value!r}, which is not a tensor operator")
        if key == "expr_str" and not (
            _EXPRESSION.fullmatch(value)
            and all(_EXPRESSION_WORD.fullmatch(word) for word in _WORD.findall(value))
        ):
            _unsafe(name, f"has a symbolic size that is not arithmetic: {value[:80]!r}")


def _is_arithmetic(target: str) -> bool:
    """Whether a node's target does nothing but compute."""
    found = _OPERATOR.fullmatch(target)
    if found is None or found["name"] is None:
        return found is not None
    if found["name"] in _NOT_ARITHMETIC:
        return False
    # Others of these namespaces are TorchScript's own, made for more than computing.
    overload = "" if found["overload"] == "default" else f".{found['overload']}"
    return f"{found['space']}::{found['name']}{overload}" in _dispatched()


@cache
def _dispatched() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())  # noqa: SLF001 - nothing public lists them


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for key, child in item.items():
                if isinstance(child, str):
                    yield key, child
                else:
                    pending.append(child)
        elif isinstance(item, list):
            pending.extend(item)


def _unsafe(name: str, reason: str) -> None:
    raise ValidationFailed(
        f"the pt2 archive was not loaded: {name} {reason}",
        hint="Log the model again with plain tensors as its example, from a machine you trust.",
        kind="unsafe",
    )
