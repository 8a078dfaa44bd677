"""What both backends read in a model configuration, as NVIDIA's backends read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import InvalidArgumentError, UnsupportedError

__all__ = [
    "CORRELATION",
    "boolean_parameter",
    "integer_parameter",
    "is_batching",
    "reject_unsupported",
    "sequence_controls",
    "string_parameter",
]

CORRELATION = "CONTROL_SEQUENCE_CORRID"

_CONTROLS = (
    "CONTROL_SEQUENCE_START",
    "CONTROL_SEQUENCE_END",
    "CONTROL_SEQUENCE_READY",
    CORRELATION,
)
_BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def is_batching(config: Mapping[str, Any]) -> bool:
    """Whether requests have a batch dimension."""
    return int(config.get("max_batch_size", 0)) > 0


def sequence_controls(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the controls that a sequence batcher passes as inputs, with the inputs' names."""
    sequence = config.get("sequence_batching") or {}
    found = [
        (entry["name"], control)
        for entry in sequence.get("control_input", [])
        for control in entry.get("control", [])
        if control.get("kind") in _CONTROLS
    ]
    return sorted(found, key=lambda pair: _CONTROLS.index(pair[1]["kind"]))


def reject_unsupported(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedError for what only NVIDIA's backends do."""
    sequence = config.get("sequence_batching") or {}
    ragged = any(entry.get("allow_ragged_batch") for entry in config.get("input", []))
    for needed, found in (
        ("batch_input", config.get("batch_input")),
        ("batch_output", config.get("batch_output")),
        ("allow_ragged_batch", ragged),
        ("implicit state", sequence.get("state")),
    ):
        if found:
            raise UnsupportedError(f"{needed} is not available outside of NVIDIA's backend")


def string_parameter(config: Mapping[str, Any], key: str) -> str | None:
    """Return a parameter, or None where it is not set."""
    parameter = (config.get("parameters") or {}).get(key)
    return None if parameter is None else str(parameter.get("string_value", ""))


def integer_parameter(config: Mapping[str, Any], key: str) -> int:
    """Return a parameter as C++'s ``stoi`` reads it, up to the first other character; 0 if unset.

    Raises:
        InvalidArgumentError: It does not begin with a 32-bit integer.
    """
    value = string_parameter(config, key)
    if value is None:
        return 0
    match = re.match(r"\s*([+-]?\d+)", value)
    if match is None or not -(2**31) <= int(match[1]) < 2**31:
        raise InvalidArgumentError(f"failed to convert '{value}' to integral number")
    return int(match[1])


def boolean_parameter(config: Mapping[str, Any], key: str) -> bool | None:
    """Return a parameter, or None where it is not set.

    Raises:
        InvalidArgumentError: It is neither true nor false.
    """
    value = string_parameter(config, key)
    if value is None:
        return None
    if value.lower() not in _BOOLEANS:
        raise InvalidArgumentError(f"failed to convert '{value}' to boolean")
    return _BOOLEANS[value.lower()]
