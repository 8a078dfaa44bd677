"""All output but tables: JSON on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, Self, TextIO, cast

from exporter.errors import StlabError
from exporter.text.redaction import redact, redact_all
from exporter.text.terminal import SafeFormatter, block, one_line

__all__ = [
    "Progress",
    "print_error",
    "print_json",
    "print_traceback",
    "redact_stderr",
    "set_up_logging",
]

logger = logging.getLogger("stlab")


class Progress:
    """Shows the steps on stderr: one line per step, and a spinner on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._status = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, step: str) -> None:
        """Show that a step begins."""
        self._show(step)

    def say(self, step: str, text: str) -> None:
        """Show a detail of a step."""
        self._show(f"{step}: {text}" if step else text)
        logger.debug("%s: %s", step, text)

    def end(self, step: str, seconds: float, *, failed: bool) -> None:
        """Show the seconds of a step."""
        if _for_machines():
            seconds = round(seconds, 3)
            logger.info("step", extra={"step": step, "seconds": seconds, "failed": failed})
            return
        from rich.text import Text

        mark = Text("✗", "red") if failed else Text("✓", "green")
        self._console.print(mark, Text(f"{one_line(step):<10} {seconds:6.2f} s"))

    def _show(self, text: str) -> None:
        if self._status is not None:
            from exporter.cli.tables import plain

            self._status.update(plain(text))


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object."""
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_error(error: StlabError) -> None:
    """Print the message and the hint of an error."""
    if _for_machines():
        logger.error(error.message, extra={"kind": error.kind, "hint": error.hint})
        return
    sys.stderr.write(f"error: {block(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"hint: {block(error.hint)}\n")


def print_traceback(error: Exception) -> None:
    """Print the traceback of a bug."""
    sys.stderr.write(block(redact("".join(traceback.format_exception(error)).rstrip())) + "\n")


class _Redacted:
    """A stream that redacts secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(redact(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_stderr() -> None:
    """Redact secrets in stderr, such as those in warnings and logs of libraries."""
    if sys.stderr is not None:
        sys.stderr = cast("TextIO", _Redacted(sys.stderr))


def set_up_logging() -> None:
    """Log to stderr according to ``LOG_LEVEL`` and ``LOG_FORMAT``."""
    handler = logging.StreamHandler()
    if _for_machines():
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(SafeFormatter("%(levelname)s %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    logger.setLevel(level if level in logging.getLevelNamesMapping() else "INFO")


def _for_machines() -> bool:
    return os.environ.get("LOG_FORMAT") == "json"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        own = {"step", "seconds", "failed", "kind", "hint"}
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key in own},
        }
        return json.dumps(redact_all(entry))
