"""Log an export in MLflow: a run with bundle and report, and tags on the version."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from exporter.bundle import REPORT, Bundle
from exporter.commands.export.report import render_html, report_of, write_json
from exporter.commands.export.request import ExportRequest
from exporter.commands.export.reuse import settings_digest
from exporter.errors import StlabError
from exporter.parity.evidence import Evidence
from exporter.proven_bundle import ProvenBundle
from exporter.registry import ExportRun, Registry, Selection
from exporter.registry.version_tags import FAILED, BundleTags, has_passed
from exporter.text.redaction import redact

__all__ = ["ExportLog"]

_HTML = "report.html"


class ExportLog:
    """The MLflow run and the tags of one export.

    Its methods raise UnavailableError if the registry does not answer.
    """

    def __init__(self, registry: Registry, selection: Selection, request: ExportRequest) -> None:
        self._registry = registry
        self._selection = selection
        self._request = request
        self._run: ExportRun | None = None

    @property
    def report(self) -> str | None:
        """The address of the HTML report, or None before it is saved."""
        return None if self._run is None else f"runs:/{self._run.run_id}/{_HTML}"

    def save(self, bundle: Bundle, evidence: Evidence, server: str, work: Path) -> str:
        """Log a proven bundle and its report in a run, which stays open; return its address."""
        model, version = self._selection.model, self._selection.version
        report = report_of(model, version, evidence, bundle=bundle, server=server)
        write_json(report, bundle.path / REPORT)
        (work / _HTML).write_text(render_html(report))
        self._run = self._begin()
        try:
            self._run.log_file(work / _HTML)
            self._run.log_bundle(bundle)
        except BaseException:
            with contextlib.suppress(StlabError):
                self._run.finish({}, succeeded=False)
            raise
        return self._run.bundle_uri

    def save_rejection(
        self, evidence: Evidence, error: StlabError, seconds: float, work: Path
    ) -> None:
        """Log the report of a rejected version, and tag the version as failed."""
        selection = self._selection
        report = report_of(selection.model, selection.version, evidence, failure=error)
        write_json(report, work / REPORT)
        (work / _HTML).write_text(render_html(report))
        self._run = self._begin()
        self._run.log_file(work / REPORT)
        self._run.log_file(work / _HTML)
        self._run.finish({"total_seconds": seconds}, succeeded=False)
        if not has_passed(selection.tags):
            # The passing evidence of an earlier bundle, which may be served, stays.
            self._registry.tag(selection.model, selection.version, FAILED)

    def tag_version(self, proven: ProvenBundle) -> None:
        """Tag the version with its bundle and the evidence, unless the bundle was reused."""
        if self._run is None:
            return
        bundle = proven.bundle
        self._registry.tag(
            self._selection.model,
            self._selection.version,
            BundleTags(
                sha256=bundle.sha256,
                uri=self._run.bundle_uri,
                format=bundle.manifest["format"],
                settings=settings_digest(bundle.manifest["settings"]),
                margin=f"{proven.parity['margin']:.6g}",
                strength=proven.parity["strength"],
                run_id=self._run.run_id,
            ).as_tags(),
        )

    def finish(
        self, proven: ProvenBundle, seconds: Mapping[str, float], *, succeeded: bool
    ) -> None:
        """Log the metrics and close the run."""
        if self._run is None:
            return
        metrics = {f"{step}_seconds": duration for step, duration in seconds.items()}
        for key in ("margin", "max_abs_error", "cases"):
            if proven.parity.get(key) is not None:
                metrics[f"parity_{key}"] = float(proven.parity[key])
        metrics["bundle_bytes"] = float(proven.bundle.size)
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
