"""Writes what a benchmark measured as JSON, beside the conditions it was measured under."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROOT", "progress", "write"]

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("mlflow", "onnx", "onnxruntime", "torch")

progress = Console(stderr=True, highlight=False)
"""Where a benchmark says what it is doing; its tables go to stdout."""


def write(name: str, results: Mapping[str, Any]) -> None:
    """Write ``benchmarks/results/<name>.json``."""
    folder = Path(__file__).with_name("results")
    folder.mkdir(exist_ok=True)
    content = {"conditions": _conditions(), **results}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    progress.print(f"written: benchmarks/results/{name}.json")


def _conditions() -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        # Well above what the benchmark itself keeps busy: other work was going on.
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "packages": {name: version(name) for name in _PACKAGES},
    }
