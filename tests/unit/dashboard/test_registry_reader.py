"""The registry's state is read in a thread, once for visitors who come together."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from exporter.commands.status.result import StatusResult
from stlab_dashboard import registry_reader
from stlab_dashboard.registry_reader import RegistryReader
from stlab_dashboard.settings import Settings


def test_visitors_share_a_read_and_refresh_reads_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    reads = []

    def status(request: object) -> StatusResult:
        assert threading.current_thread() is not threading.main_thread()
        reads.append(request)
        time.sleep(0.05)
        if len(reads) == 1:
            raise OSError("the registry is restarting")
        return StatusResult()

    monkeypatch.setattr(registry_reader, "status", status)

    async def visit() -> None:
        reader = RegistryReader(Settings(cache_seconds=60.0))
        with pytest.raises(OSError, match="restarting"):
            await reader.status()
        await asyncio.gather(*(reader.status() for _ in range(20)))
        assert len(reads) == 2  # the error is not kept
        await reader.status(refresh=True)
        assert len(reads) == 3

    asyncio.run(visit())
