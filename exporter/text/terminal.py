r"""Make text from outside safe for a terminal and for a log.

Names, tags and messages of servers may hold escape sequences that colour, move or type, and marks
that reverse a line. Every invisible character is written as Python writes it: ``\x1b`` for an
escape.
"""

from __future__ import annotations

import logging
import unicodedata

from exporter.text.redaction import redact

__all__ = ["SafeFormatter", "block", "one_line", "safe_lines"]

# Controls, marks of direction and other formats, lone surrogates, separators of lines.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def one_line(text: str) -> str:
    """Return a text as one line, each run of blanks as one space."""
    return _shown(" ".join(text.split()))


def safe_lines(text: str) -> str:
    """Return a text of the same lines."""
    return "\n".join(_shown(line) for line in text.split("\n"))


def block(text: str) -> str:
    """Return a text of the same lines, all but the first indented by two spaces.

    So no line of it can pass for a line of this program.
    """
    return safe_lines(text).replace("\n", "\n  ")


class SafeFormatter(logging.Formatter):
    """Format a record as text without secrets, escape sequences and unindented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text."""
        return block(redact(super().format(record)))


def _shown(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in _UNSHOWN else char for char in line
    )
