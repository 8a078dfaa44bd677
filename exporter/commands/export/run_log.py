"""Log an export in MLflow: a run with bundle and report, and tags on the version."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.bundle import REPORT, Bundle
from exporter.commands.export.bundle_settings import settings_digest
from exporter.commands.export.report import report_of, write_html
from exporter.commands.export.request import ExportRequest
from exporter.errors import StlabError
from exporter.parity.evidence import Evidence
from exporter.registry import ExportRun, Registry, Selection
from exporter.registry.version_tags import FAILED, BundleTags, has_passed
from exporter.text.redaction import redact

__all__ = ["ExportLog"]

_HTML = "report.html"


class ExportLog:
    """The MLflow run and the tags of one export."""

    def __init__(self, registry: Registry, selection: Selection, request: ExportRequest) -> None:
        self._registry = registry
        self._selection = selection
        self._request = request
        self._run: ExportRun | None = None

    @property
    def report(self) -> str | None:
        """The address of the HTML report, or None before it is saved."""
        return None if self._run is None else f"runs:/{self._run.run_id}/{_HTML}"

    def save(self, bundle: Bundle, evidence: Evidence, server: str, work: Path) -> None:
        """Log a proven bundle and its report in a run, which stays open.

        Raises:
            UnavailableError: The registry does not answer.
        """
        selection = self._selection
        report = report_of(
            selection.model, selection.version, evidence, bundle=bundle, server=server
        )
        report.write_json(bundle.path / REPORT)
        write_html(report, work / _HTML)
        self._run = self._begin()
        try:
            self._run.log_file(work / _HTML)
            self._run.log_bundle(bundle)
        except BaseException:
            with contextlib.suppress(StlabError):
                self._run.finish({}, succeeded=False)
            raise

    @property
    def bundle_uri(self) -> str:
        """The address of the saved bundle; empty before."""
        return "" if self._run is None else self._run.bundle_uri

    def save_rejection(
        self, evidence: Evidence, error: StlabError, seconds: float, work: Path
    ) -> None:
        """Log the report of a rejected version, and tag the version as failed.

        Raises:
            UnavailableError: The registry does not answer.
        """
        selection = self._selection
        report = report_of(selection.model, selection.version, evidence, failure=error)
        report.write_json(work / REPORT)
        write_html(report, work / _HTML)
        self._run = self._begin()
        self._run.log_file(work / REPORT)
        self._run.log_file(work / _HTML)
        self._run.finish({"total_seconds": seconds}, succeeded=False)
        if not has_passed(selection.tags):
            # The passing evidence of an earlier bundle, which may be served, stays.
            self._registry.tag(selection.model, selection.version, FAILED)

    def tag_version(self, bundle: Bundle, parity: Mapping[str, Any]) -> None:
        """Tag the version with its bundle and the evidence, unless the bundle was reused.

        Raises:
            UnavailableError: The registry does not answer.
        """
        if self._run is None:
            return
        self._registry.tag(
            self._selection.model,
            self._selection.version,
            BundleTags(
                sha256=bundle.sha256,
                uri=self._run.bundle_uri,
                format=bundle.manifest["format"],
                settings=settings_digest(bundle.manifest["settings"]),
                margin=f"{parity['margin']:.6g}",
                run_id=self._run.run_id,
            ).as_tags(),
        )

    def finish(
        self,
        bundle: Bundle,
        parity: Mapping[str, Any],
        seconds: Mapping[str, float],
        *,
        succeeded: bool,
    ) -> None:
        """Log the metrics and close the run.

        Raises:
            UnavailableError: The registry does not answer.
        """
        if self._run is None:
            return
        metrics = {f"{step}_seconds": duration for step, duration in seconds.items()}
        for key in ("margin", "max_abs_error", "cases"):
            if parity.get(key) is not None:
                metrics[f"parity_{key}"] = float(parity[key])
        metrics["bundle_bytes"] = float(bundle.size)
        self._run.finish(metrics, succeeded=succeeded)

    def _begin(self) -> ExportRun:
        request, selection = self._request, self._selection
        return ExportRun.begin(
            self._registry,
            f"{selection.model}-{selection.version}-{request.alias}",
            {
                "model": selection.model,
                "version": selection.version,
                "alias": request.alias,
                "format": request.format,
                "precision": request.precision,
                "batching": request.batching,
                "max_batch_size": request.max_batch_size,
                "max_queue_size": request.max_queue_size,
                "repository": redact(request.repository),
            },
        )
