"""The report of an export: ``report.json``, and a self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import StlabError
from exporter.text.redaction import redact, redact_all

if TYPE_CHECKING:
    from exporter.bundle import Bundle
    from exporter.parity.evidence import Evidence

__all__ = ["render_html", "report_of", "write_json"]


def report_of(
    model: str,
    version: int,
    evidence: Evidence,
    *,
    bundle: Bundle | None = None,
    server: str = "",
    failure: StlabError | None = None,
) -> dict[str, Any]:
    """Return the report of an export: schema, bundle, subject, parity, and the error or None.

    ``bundle`` is None if none was built, and ``failure`` is the error of a rejected version.
    """
    manifest: dict[str, Any] = {} if bundle is None else {**bundle.manifest}
    shown = ("source", "format", "precision", "converter", "libraries", "target", "batching",
             "interface", "settings")  # fmt: skip
    parity = redact_all(evidence.as_dict())
    return {
        "schema": 1,
        "model": model,
        "version": version,
        "bundle": None if bundle is None else bundle.sha256,
        "bytes": None if bundle is None else bundle.size,
        "subject": {key: manifest[key] for key in shown if key in manifest},
        "server": redact(server),
        "parity": {**parity, "passed": parity["passed"] and failure is None},
        "error": None if failure is None else failure.as_dict(),
    }


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write ``report.json``."""
    path.write_text(json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")


def render_html(report: Mapping[str, Any]) -> str:
    """Return the HTML page, which has no external resources."""
    from jinja2 import Environment, StrictUndefined

    template = files("exporter.commands.export").joinpath("report.html.j2").read_text()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda value: "beyond" if value is None else f"{value:.3g}"
    environment.filters["plain"] = _plain
    page: str = environment.from_string(template).render(**report)
    return page


def _plain(value: Any) -> str:
    """Return a JSON value as text."""
    if isinstance(value, dict):
        if set(value) == {"name", "datatype", "shape"}:
            return f"{value['name']} {value['datatype']} {value['shape']}"
        parts = (f"{key}: {_plain(item)}" for key, item in value.items() if item is not None)
        return "; ".join(parts)
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)
