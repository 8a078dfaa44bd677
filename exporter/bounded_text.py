"""Read text from artifacts, tags and repositories within bounds, with one error for damage.

Parsers of libraries raise many errors for damaged text, such as RecursionError for a text of
brackets, OverflowError for ``1e999`` or AttributeError for a list in place of a mapping. For text
from outside, each of them means a damaged file, not a fault of stlab.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.errors import StlabError, UnavailableError, ValidationFailedError, first_line

__all__ = ["MOST_DEPTH", "UNFIT", "check_depth", "parse_json", "read_bounded", "reading"]

UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors of code that reads a parsed value of an unexpected form."""

MOST_DEPTH = 64
"""How deeply a value may be nested."""

_MOST_JSON = 64 * 1024 * 1024
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@contextmanager
def reading(what: str, *, hint: str, kind: str) -> Iterator[None]:
    """Turn any error raised while a file from outside is read into one that names the file.

    Raises:
        ValidationFailedError: It is missing or damaged.
        UnavailableError: This machine cannot read it.
    """
    try:
        yield
    except (StlabError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, _MISSING):
            raise UnavailableError(
                f"{what} cannot be read here: {error.strerror or error}",
                hint="Check this machine's disk, memory and limits, then run the command again.",
            ) from error
        raise ValidationFailedError(
            f"{what} cannot be read: {first_line(error)}", hint=hint, kind=kind
        ) from error


def read_bounded(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError: It is larger than ``most`` bytes.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return content


def parse_json(content: bytes | str | Path, *, strict: bool = False) -> Any:
    """Parse JSON, or a file of it; strictly, with numbers that are finite and fit 64 bits.

    Raises:
        ValueError: It is damaged, too large or too deep.
    """
    text = content if isinstance(content, bytes | str) else read_bounded(content, _MOST_JSON)
    if len(text) > _MOST_JSON:
        raise ValueError(f"it is larger than {_MOST_JSON} bytes")
    try:
        parsed = json.loads(text, **(_STRICT if strict else {}))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_depth(parsed)
    return parsed


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text[:20]}")
    return value


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"it holds the number {text[:20]}…")
    return int(text)


_STRICT: dict[str, Any] = {
    "parse_constant": _finite,
    "parse_float": _finite,
    "parse_int": _integer,
}


def check_depth(parsed: Any) -> None:
    """Check that a parsed value is safe to walk by recursion, and its texts to encode.

    Raises:
        ValueError: It is nested too deeply, or a text has half of a surrogate pair.
    """
    values: list[Any] = [parsed]
    for _ in range(MOST_DEPTH + 1):
        children: list[Any] = []
        for value in values:
            if isinstance(value, str):
                value.encode()
            elif isinstance(value, dict):
                children += [*value, *value.values()]
            elif isinstance(value, list):
                children += value
        if not children:
            return
        values = children
    raise ValueError("it is nested too deeply")
