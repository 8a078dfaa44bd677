"""A plain HTTP client that knows of every request whether it was sent, and what came of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Asked", "Load", "asking"]

NOT_SENT, LOST = 0, -1


@dataclass
class Asked:
    """One request.

    Attributes:
        sent: When it was sent, on the monotonic clock.
        seconds: How long the answer took.
        status: The HTTP status; 0 where no connection could be had, -1 where no answer came.
        headers: The answer's headers.
        body: The answer.
    """

    sent: float
    seconds: float
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Load:
    """What clients saw so far."""

    asked: list[Asked] = field(default_factory=list)

    def statuses(self, since: float = 0.0) -> Counter[int]:
        return Counter(a.status for a in self.asked if a.sent >= since)

    def median(self, status: int = 200) -> float:
        times = sorted(a.seconds for a in self.asked if a.status == status)
        return times[len(times) // 2]

    def wait_for(self, count: int, status: int = 200, seconds: float = 30.0) -> None:
        """Return once so many more answers of a status have come."""
        goal = self.statuses()[status] + count
        end = time.monotonic() + seconds
        while self.statuses()[status] < goal:
            assert time.monotonic() < end, self.statuses()
            time.sleep(0.02)


@contextmanager
def asking(
    port: int, path: str, body: Mapping[str, Any], *, clients: int, rate: float | None = None
) -> Iterator[Load]:
    """Ask in the background, over connections that are kept.

    Args:
        port: The service's port.
        path: What to post to.
        body: What to post.
        clients: How many connections ask at once, each one request at a time.
        rate: Requests a second of all of them; as many as are answered by default.
    """
    load = Load()
    over = threading.Event()
    raw = json.dumps(body).encode()
    message = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    ).encode() + raw
    pause = None if rate is None else clients / rate

    async def client(number: int) -> None:
        connection = None
        if pause is not None:
            await asyncio.sleep(pause * number / clients)
        while not over.is_set():
            begin = time.monotonic()
            connection, asked = await _ask(port, message, connection)
            load.asked.append(asked)
            if asked.status in {NOT_SENT, LOST}:
                await asyncio.sleep(0.05)
            if pause is not None:
                await asyncio.sleep(max(0.0, begin + pause - time.monotonic()))
        if connection is not None:
            connection[1].close()

    async def everybody() -> None:
        await asyncio.gather(*(client(number) for number in range(clients)))

    thread = threading.Thread(target=asyncio.run, args=(everybody(),))
    thread.start()
    try:
        yield load
    finally:
        over.set()
        thread.join(timeout=60)
        assert not thread.is_alive()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _ask(
    port: int, message: bytes, connection: Connection | None
) -> tuple[Connection | None, Asked]:
    sent = time.monotonic()
    if connection is not None and connection[0].at_eof():
        connection = None  # closed while nothing was asked
    try:
        reader, writer = connection or await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None, Asked(sent, 0.0, NOT_SENT)
    try:
        writer.write(message)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    except (OSError, asyncio.IncompleteReadError):
        writer.close()
        return None, Asked(sent, time.monotonic() - sent, LOST)
    asked = Asked(sent, time.monotonic() - sent, int(head[0].split()[1]), headers, body)
    if headers.get("connection") == "close":
        writer.close()
        return None, asked
    return (reader, writer), asked
