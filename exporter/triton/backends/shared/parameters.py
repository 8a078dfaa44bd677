"""Values of a model configuration's ``parameters``, read as NVIDIA's backends read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import InvalidArgumentError

__all__ = ["boolean_parameter", "integer_parameter", "string_parameter"]

_INTEGER = re.compile(r"\s*([+-]?\d+)")
_TRUE, _FALSE = frozenset({"true", "on", "1"}), frozenset({"false", "off", "0"})


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
    match = _INTEGER.match(value)
    if match is None or not -(2**31) <= int(match.group(1)) < 2**31:
        raise InvalidArgumentError(f"failed to convert '{value}' to integral number")
    return int(match.group(1))


def boolean_parameter(config: Mapping[str, Any], key: str) -> bool | None:
    """Return a parameter, or None where it is not set.

    Raises:
        InvalidArgumentError: It is neither true nor false.
    """
    value = string_parameter(config, key)
    if value is None:
        return None
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgumentError(f"failed to convert '{value}' to boolean")
