from __future__ import annotations

from tests.integration.exporter.conftest import lab

__all__ = ["lab"]
