"""SQLite without the disk: a test's registry does not outlive the machine."""

from __future__ import annotations

import sqlite3

from sqlalchemy import event
from sqlalchemy.engine import Engine

__all__ = ["commit_to_memory"]


def commit_to_memory() -> None:
    """Let this process not wait for the disk at each commit; other processes see it all the same.

    A commit takes 7 ms with it, and an export makes dozens.
    """
    event.listen(Engine, "connect", _do_not_wait)


def _do_not_wait(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
