"""Checks the description of a program in a pt2 archive against torch's own schema, key by key.

Torch prints names of the description into Python source and executes it, imports what its
containers name, and looks operators up by dotted name. Every key must be one of torch's dataclasses
(torch/_export/serde/schema.py), every value of its type, and every text needs a rule of
`pt2_rules`: a field that a later torch adds is refused until its use in torch has been reviewed.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import IntEnum
from functools import cache
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.union import _Union

from exporter.sources.pytorch.pt2_rules import INTEGERS, RULES, is_dict_key, is_word

__all__ = ["check_example", "check_payloads", "check_program"]

_MAX_DEPTH = 300
_NON_FINITE = frozenset({"Infinity", "-Infinity", "NaN"})

# What of the description is not needed to compute: stack traces, names of modules and functions.
_DROPPED = frozenset(
    {"Node.metadata", "GraphModule.metadata", "GraphModule.treespec_namedtuple_fields"}
)


def check_program(program: Any) -> None:
    """Check a parsed ``models/model.json``, and empty in place what is not needed to compute.

    Raises:
        ValueError: Something in it is not known, or may reach code; the place is named.
    """
    _check(schema.ExportedProgram, program, "", "", 0)


def check_payloads(config: Any) -> None:
    """Check where an archive's weights or constants are.

    Raises:
        ValueError: One of them is a pickle, or something in it is not known.
    """
    _check(schema.PayloadConfig, config, "", "", 0)
    for name, payload in config["config"].items():
        if payload.get("use_pickle"):
            raise ValueError(f"keeps '{name}' as a pickled object")


def check_example(values: Any) -> None:
    """Check the example that a program was exported with; its keys reach the source of guards.

    Raises:
        ValueError: It holds more than tensors, numbers and words in plain containers.
    """
    pending = [values]
    while pending:
        value = pending.pop()
        if type(value).__name__ in {"dict", "OrderedDict"} and isinstance(value, dict):
            if not all(map(is_dict_key, value)):
                raise ValueError("has an example with keys that are not plain words")
            pending.extend(value.values())
        elif type(value) in {tuple, list}:
            pending.extend(value)
        elif isinstance(value, str):
            if not is_word(value):
                raise ValueError("has an example with a text that is not a plain word")
        elif not isinstance(value, torch.Tensor | int | float | None):
            raise ValueError(f"has an example that holds a {type(value).__name__}")


def _check(kind: Any, value: Any, field: str, where: str, depth: int) -> None:
    """Check a value of a type of the schema; a text by the rule of the field that holds it."""
    if depth > _MAX_DEPTH:
        raise ValueError("is nested too deep")
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        if value is not None:
            _check(inner[0], value, field, where, depth)
    elif origin is list:
        _expect(isinstance(value, list), where)
        for item in value:
            _check(inner[0], item, field, where, depth + 1)
    elif origin is dict:
        _expect(isinstance(value, dict), where)
        for key, item in value.items():
            _check_text(key, field, where)
            _check(inner[1], item, field, f"{where}.{key}", depth + 1)
    elif dataclasses.is_dataclass(kind):
        _check_fields(kind, value, where, depth)
    elif kind is str:
        _check_text(value, field, where)
    else:
        _expect(_is_number_of(kind, value), where)


def _check_fields(kind: Any, value: Any, where: str, depth: int) -> None:
    _expect(isinstance(value, dict), where)
    fields = _fields(kind)
    if issubclass(kind, _Union):
        _expect(len(value) == 1, where)
    for name, held in value.items():
        field = f"{kind.__name__}.{name}"
        if name not in fields:
            raise ValueError(f"has '{name[:80]}' in {where or 'it'}, which is not known")
        if field in _DROPPED:
            value[name] = {}
        else:
            _check(fields[name], held, field, f"{where}.{name}".lstrip("."), depth + 1)
    if kind is schema.Graph:
        # Torch prints a constant input between quotes.
        for place in value.get("inputs", ()):
            if "as_string" in place and not is_word(place["as_string"]):
                raise ValueError(f"has a text as constant input: {place['as_string'][:80]!r}")


def _check_text(text: Any, field: str, where: str) -> None:
    _expect(isinstance(text, str), where)
    rule = RULES.get(field)
    if rule is None or not rule(text):
        if field == "Node.target":
            raise ValueError(f"calls {text[:80]!r}, which is not a tensor operator")
        if field == "SymExpr.expr_str":
            raise ValueError(f"has a symbolic size that is not arithmetic: {text[:80]!r}")
        raise ValueError(f"has {text[:80]!r} in {where}, which could become code")


def _is_number_of(kind: Any, value: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is float:
        return type(value) in {int, float} or (isinstance(value, str) and value in _NON_FINITE)
    if type(value) is not int:
        return False
    if issubclass(kind, IntEnum):
        return value in {member.value for member in kind}
    return value in INTEGERS


def _expect(right: object, where: str) -> None:
    if not right:
        raise ValueError(f"has a value of the wrong type in {where or 'it'}")


@cache
def _fields(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, globalns=vars(schema))
