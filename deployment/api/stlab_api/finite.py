"""Finds non-finite numbers in JSON: NaN, the infinities, and numbers that are read as one."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from stlab_api.problems import invalid_at

__all__ = ["check_finite"]

# Most bodies do not match, and are not read again.
_SUSPECT = re.compile(rb"\d[eE]\+?\d{3}|NaN|Infinity|\d{300}")
_WHAT = "Input should be a finite number"


def check_finite(body: bytes) -> None:
    """Refuse a body with a non-finite number.

    Args:
        body: Valid JSON.

    Raises:
        Problem: 422, with its place.
    """
    if not _SUSPECT.search(body):
        return
    try:
        document = json.loads(body)
    except ValueError as error:  # thousands of digits
        raise invalid_at((), _WHAT) from error
    place = _not_finite(document)
    if place is not None:
        raise invalid_at(place, _WHAT)


def _not_finite(value: Any) -> tuple[int | str, ...] | None:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return ()
    for key, item in items:
        place = _not_finite(item)
        if place is not None:
            return (key, *place)
    return None
