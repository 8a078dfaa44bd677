"""Logs as text or as JSON lines; never a request's content."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from exporter.text.redaction import redact_each
from exporter.text.terminal import SafeFormatter, one_line

__all__ = ["access", "set_up"]

access = logging.getLogger("stlab_api.access")

_LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        texts = {key: value for key, value in entry.items() if isinstance(value, str)}
        entry |= zip(texts, redact_each(tuple(texts.values())), strict=True)
        # ASCII alone: a terminal obeys escape sequences that orjson would leave in.
        return json.dumps(entry, default=str)


class _Text(SafeFormatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the library
        pairs = getattr(record, "fields", {}).items()
        fields = (one_line(f"{name}={value}") for name, value in pairs)
        return " ".join([super().formatMessage(record), *fields])


def set_up(level: str, form: str) -> None:
    """Send this package's and uvicorn's logs to stderr, each line once, as text or JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text(_LINE))
    for name in ("stlab_api", "uvicorn", "triton_client"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
