"""Bind the tensors of a configuration to the arguments and results of a script.

A script has no names that clients use. For all inputs together, NVIDIA's backend uses the first of
these that fits: the names of ``forward``'s arguments, a number after two underscores, the order in
the configuration. For outputs it uses the latter two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.configuration import reject_unsupported, sequence_controls
from ..shared.datatypes import DATATYPES
from ..shared.errors import InternalError, InvalidArgumentError, UnsupportedError

__all__ = ["Binding", "bind", "config_datatype"]

_UNSUPPORTED = {"TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_STRING", "TYPE_BF16"}
_SUPPORTED = frozenset(DATATYPES.values()) - _UNSUPPORTED


@dataclass(frozen=True)
class Binding:
    """The positions of a configuration's tensors.

    Attributes:
        inputs: The position of every input among the arguments.
        outputs: The position of every output among the results.
        datatypes: The configured data type of every output, such as ``TYPE_FP32``.
        as_dict: Whether the script takes one dict of tensors by their names.
    """

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    datatypes: Mapping[str, str]
    as_dict: bool


def config_datatype(dtype: Any) -> str:
    """Return the configuration's name of a ``torch.dtype``."""
    datatype = DATATYPES.get(str(dtype).removeprefix("torch."))
    return datatype if datatype in _SUPPORTED else "TYPE_<invalid>"


def bind(config: Mapping[str, Any], schema: Any) -> Binding:
    """Check a configuration against the schema of a script's ``forward``.

    Raises:
        InvalidArgumentError: It does not fit.
        InternalError: It needs something that torch does not have.
        UnsupportedError: It fits, but only NVIDIA's backend supports it.
    """
    reject_unsupported(config)
    entries, results = config.get("input", []), config.get("output", [])
    controls = [name for name, _ in sequence_controls(config)]
    for name in controls:
        if _number(name) is None:
            raise InternalError(
                f"input '{name}' does not follow <name>__<index> naming convention."
            )
    arguments = [a for a in schema.arguments if a.type.kind() not in {"ClassType", "InterfaceType"}]
    as_dict = len(arguments) == 1 and arguments[0].type.kind() == "DictType"
    if not as_dict:
        _check_arguments(config, arguments, len(entries) + len(controls))
    for side, given in (("input", entries), ("output", results)):
        if not given:
            raise InternalError(
                f"model configuration must contain at least one {side}, none were specified."
            )
        for entry in given:
            _check_datatype(config, entry, side)
    allowed = [] if as_dict else [argument.name for argument in arguments]
    inputs = _positions(entries, allowed) | {name: _number(name) or 0 for name in controls}
    if not as_dict and sorted(inputs.values()) != list(range(len(arguments))):
        raise InvalidArgumentError(
            f"unable to load model '{config['name']}', the inputs {', '.join(inputs)} do not refer "
            f"to the {len(arguments)} arguments of the model one by one"
        )
    datatypes = {entry["name"]: entry["data_type"] for entry in results}
    return Binding(inputs, _positions(results, []), datatypes, as_dict)


def _check_arguments(config: Mapping[str, Any], arguments: Sequence[Any], expected: int) -> None:
    kinds = [argument.type.kind() for argument in arguments]
    if "DictType" in kinds[1:]:
        raise InternalError(
            "Multiple inputs of kind DictType were detected. Only a single input of type "
            "Dict(str, Tensor) is supported."
        )
    for argument, kind in zip(arguments, kinds, strict=True):
        if kind not in {"TensorType", "ListType"}:
            raise InternalError(
                f"An input of type '{argument.type.str()}' was detected in the model. Only a "
                "single input of type Dict(str, Tensor) or input(s) of type Tensor are supported."
            )
    if arguments and len(arguments) != expected:
        raise InvalidArgumentError(
            f"unable to load model '{config['name']}', configuration expects {expected} inputs, "
            f"model provides {len(arguments)}"
        )


def _check_datatype(config: Mapping[str, Any], entry: Mapping[str, Any], side: str) -> None:
    if entry["data_type"] == "TYPE_STRING":
        raise UnsupportedError("lists of strings are not available outside of NVIDIA's backend")
    if entry["data_type"] not in _SUPPORTED:
        raise InternalError(
            f"unsupported datatype {entry['data_type']} for {side} '{entry['name']}' for model "
            f"'{config['name']}'"
        )


def _positions(entries: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> dict[str, int]:
    names = [entry["name"] for entry in entries]
    if allowed and set(names) <= set(allowed):
        return {name: allowed.index(name) for name in names}
    numbers = {name: _number(name) for name in names}
    if None in numbers.values():
        return {name: index for index, name in enumerate(names)}
    return {name: number or 0 for name, number in numbers.items()}


def _number(name: str) -> int | None:
    """Return the number after the first two underscores; 0 where nothing follows them."""
    _, underscores, number = name.partition("__")
    digits = number.isascii() and number.isdigit()
    return int(number or 0) if underscores and (digits or not number) else None
