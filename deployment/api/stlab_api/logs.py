"""Logs as text for people or JSON lines for machines; never what a request holds."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from exporter.text.redaction import redact, redact_each
from exporter.text.terminal import block, one_line

__all__ = ["access", "set_up"]

access = logging.getLogger("stlab_api.access")


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
        # In ASCII: a terminal would obey what orjson leaves as it is.
        return json.dumps(entry, default=str)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        line, *rest = super().format(record).split("\n", 1)
        pairs = (one_line(f"{key}={value}") for key, value in fields.items())
        return block(redact("\n".join([" ".join([line, *pairs]), *rest])))


def set_up(level: str, form: str) -> None:
    """Send this package's and uvicorn's logs to stderr, each line once.

    Args:
        level: The least level that is written.
        form: ``text`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    for name in ("stlab_api", "uvicorn", "triton_client"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
