"""The way of the data, top to bottom.

    resolve → pull → convert → configure → prove → publish → activate → verify → promote

Each step lives in a module of its own and hands on one value. Every prefix is safe to stop at:
until the last step the alias names what it named, and what fails on the way is undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.activation import check_servers, reload, serving, verify
from exporter.building import BuildJob, Candidate, build, settings_digest, settings_of
from exporter.bundle import REPORT, Bundle
from exporter.errors import ConflictError, NotFoundError, StlabError, UsageError, ValidationFailed
from exporter.grounds import ground as open_ground
from exporter.isolation import build_apart
from exporter.parity.evidence import Evidence
from exporter.progress import Listener, Silent, Steps
from exporter.proving import prove, prove_again, refuse
from exporter.registry import ExportRun, Registry, Selection
from exporter.registry.runs import fetch_bundle
from exporter.report import report_of, write_html
from exporter.repository import LocalRepository, Workspace
from exporter.result import ExportResult, bundle_summary
from exporter.triton.releases import DEFAULT_RELEASE, Release, release

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.grounds import Ground
    from exporter.settings import ExportRequest

__all__ = ["export"]


def export(
    request: ExportRequest, listener: Listener | None = None, *, isolated: bool = True
) -> ExportResult:
    """Take a version from the registry to a served model, prove it, and move the alias.

    Args:
        request: What is asked for.
        listener: Told about every step.
        isolated: Whether the model is run and converted in a process of its own.

    Returns:
        The result; on failure with ``status`` ``failed`` and the error in it.
    """
    job = _Export(request, Steps(listener or Silent()), build_apart if isolated else build)
    try:
        job.run()
    except StlabError as error:
        job.result = job.result.failed(error)
    return replace(job.result, seconds=job.steps.seconds)


@dataclass(frozen=True, slots=True)
class _Proven:
    """A bundle with passed evidence; the run is open while it is being promoted."""

    bundle: Bundle
    parity: Mapping[str, Any]
    run: ExportRun | None
    reused: bool


Builder = Callable[[BuildJob, Evidence, Steps], Candidate]
"""Builds a bundle: here, or in a process of its own."""


class _Export:
    def __init__(self, request: ExportRequest, steps: Steps, builder: Builder) -> None:
        self.request = request
        self.steps = steps
        self.builder = builder
        self.repository = LocalRepository(Path(request.repository))
        self.result = ExportResult(
            "failed", request.model, request.alias, repository=request.repository
        )

    def run(self) -> None:
        request, steps = self.request, self.steps
        target = release(request.triton_release or DEFAULT_RELEASE)
        with steps("resolve"):
            registry = Registry.connect(request.tracking_uri)
            selection = registry.select(request.model, request.alias, request.version)
            self.result = replace(
                self.result, version=selection.version, previous=selection.previous
            )
            self._check_right(selection)
            check_servers(request.triton_urls)
            evidence = _Recorded.of(selection, settings_digest(settings_of(request, target)))
            if request.alias == "prod" and evidence.sha256 is None:
                raise ConflictError(
                    f"version {selection.version} has no passed evidence",
                    hint=f"Prove it first: stlab-export {request.model} --alias staging",
                )
            settled = self._settled(selection, evidence)
        if settled is not None:
            self._conclude("unchanged", settled)
        elif request.dry_run:
            self.result = replace(self.result, status="planned", plan=self._plan(evidence))
        else:
            with Workspace.open(self.repository.root, request.model) as work:
                proven = self._prove(registry, selection, target, evidence, work.path)
                self._deliver(registry, selection, proven, work.path)
                self._conclude("promoted", proven)

    def _check_right(self, selection: Selection) -> None:
        request = self.request
        if request.alias == "prod" and not (request.in_ci or request.allow_manual):
            raise UsageError(
                "'prod' is moved by CI, not by hand",
                hint="Run it in a pipeline (CI=true), or record the exception with --allow-manual.",
            )
        expected = request.expect_current
        if expected is not None and (selection.previous or 0) != expected:
            raise ConflictError(
                f"'{request.alias}' names version {selection.previous or 'none'}, "
                f"not {expected} as expected",
                hint="Somebody promoted meanwhile; look at it before you go on.",
            )

    def _settled(self, selection: Selection, evidence: _Recorded) -> _Proven | None:
        """Return what is proven, published, served and promoted already, if all of it is."""
        if selection.previous != selection.version or evidence.sha256 is None:
            return None
        try:
            bundle = self.repository.bundle(selection.model, selection.version)
        except ValidationFailed:
            return None
        if bundle is None or bundle.sha256 != evidence.sha256 or not self.repository.serves(bundle):
            return None
        if not all(serving(url, bundle) for url in self.request.triton_urls):
            return None
        report = bundle.report()
        if report is None:
            return None
        return _Proven(bundle, report["parity"], None, reused=True)

    def _plan(self, evidence: _Recorded) -> tuple[str, ...]:
        begin = (
            (f"reuse bundle {evidence.sha256[:12]}", "replay its samples")
            if evidence.sha256
            else ("pull", f"convert to {self.request.format}", "configure", "prove")
        )
        servers = tuple(f"activate on {url}" for url in self.request.triton_urls)
        return (*begin, f"publish to {self.request.repository}", *servers,
                f"move '{self.request.alias}' to version {self.result.version}")  # fmt: skip

    def _prove(
        self,
        registry: Registry,
        selection: Selection,
        target: Release,
        recorded: _Recorded,
        work: Path,
    ) -> _Proven:
        with open_ground(self.request.prove_on, work / "ground", target, self.steps.say) as ground:
            if recorded.sha256 is not None:
                try:
                    return self._replay(registry, selection, recorded, ground, work)
                except (NotFoundError, ValidationFailed):
                    if self.request.alias == "prod":
                        raise  # built once: what staging proved, or nothing
            return self._build(registry, selection, target, ground, work)

    def _replay(
        self,
        registry: Registry,
        selection: Selection,
        recorded: _Recorded,
        ground: Ground,
        work: Path,
    ) -> _Proven:
        with self.steps("fetch"):
            bundle = fetch_bundle(registry, recorded.uri, recorded.sha256 or "", work / "fetched")
            report = bundle.report()
            if report is None or not report["parity"]["passed"]:
                raise ConflictError(
                    f"version {selection.version} is tagged as proven, its report says otherwise",
                    hint=f"Prove it again: stlab-export {selection.model} --alias staging",
                )
        with self.steps("prove"):
            prove_again(ground, bundle)
        return _Proven(bundle, report["parity"], None, reused=True)

    def _build(
        self,
        registry: Registry,
        selection: Selection,
        target: Release,
        ground: Ground,
        work: Path,
    ) -> _Proven:
        evidence = Evidence()
        (work / "bundle").mkdir()
        try:
            with self.steps("pull"):
                artifact = registry.pull(selection.model, selection.version, work / "artifact")
            job = BuildJob(
                selection.model,
                selection.version,
                artifact,
                work / "bundle",
                settings_of(self.request, target),
                self.request.samples,
                self.request.allow_pickle,
            )
            candidate = self.builder(job, evidence, self.steps)
            with self.steps("prove"):
                prove(ground, candidate, evidence)
                refuse(evidence)
        except ValidationFailed as error:
            self.result = replace(self.result, parity=evidence.failed_summary())
            with contextlib.suppress(StlabError):
                self._record_failure(registry, selection, evidence, error, work)
            raise
        with self.steps("record"):
            bundle = candidate.bundle.with_facts(
                evidence={"passed": True, "checks": [check.name for check in evidence.checks]}
            )
            run = self._record(registry, selection, bundle, evidence, ground.description(), work)
        return _Proven(bundle, evidence.summary(), run, reused=False)

    def _record(
        self,
        registry: Registry,
        selection: Selection,
        bundle: Bundle,
        evidence: Evidence,
        server: str,
        work: Path,
    ) -> ExportRun:
        report = report_of(
            selection.model, selection.version, evidence, bundle=bundle, server=server
        )
        report.write_json(bundle.path / REPORT)
        run = self._begin_run(registry, selection)
        write_html(report, work / "report.html")
        run.keep_file(work / "report.html")
        run.keep_bundle(bundle)
        registry.tag(
            selection.model,
            selection.version,
            {
                "stlab.bundle.sha256": bundle.sha256,
                "stlab.bundle.uri": run.bundle_uri,
                "stlab.bundle.format": bundle.manifest["format"],
                "stlab.bundle.settings": settings_digest(bundle.manifest["settings"]),
                "stlab.parity.margin": f"{evidence.margin:.6g}",
                "stlab.export.run_id": run.run_id,
                # Last: who reads the other tags trusts them only beside this one.
                "stlab.parity": "passed",
            },
        )
        self.result = replace(self.result, report=f"runs:/{run.run_id}/report.html")
        return run

    def _record_failure(
        self,
        registry: Registry,
        selection: Selection,
        evidence: Evidence,
        error: ValidationFailed,
        work: Path,
    ) -> None:
        run = self._begin_run(registry, selection)
        report = report_of(selection.model, selection.version, evidence, failure=error)
        report.write_json(work / REPORT)
        write_html(report, work / "report.html")
        run.keep_file(work / REPORT)
        run.keep_file(work / "report.html")
        run.finish({"total_seconds": self.steps.seconds["total"]}, succeeded=False)
        self.result = replace(self.result, report=f"runs:/{run.run_id}/report.html")
        if selection.tags.get("stlab.parity") != "passed":
            # Evidence for a bundle that is served already stays what it is.
            registry.tag(selection.model, selection.version, {"stlab.parity": "failed"})

    def _begin_run(self, registry: Registry, selection: Selection) -> ExportRun:
        request = self.request
        return ExportRun.begin(
            registry,
            f"{selection.model}-{selection.version}-{request.alias}",
            {
                "model": selection.model,
                "version": selection.version,
                "alias": request.alias,
                "format": request.format,
                "precision": request.precision,
                "batching": request.batching,
                "max_batch_size": request.max_batch_size,
                "repository": request.repository,
            },
        )

    def _deliver(
        self, registry: Registry, selection: Selection, proven: _Proven, work: Path
    ) -> None:
        """Publish, activate, verify, promote; whatever fails, undo what was done."""
        bundle, repository, urls = proven.bundle, self.repository, self.request.triton_urls
        beside = self._staying(selection)
        with self._undoing(proven) as undo:
            with self.steps("publish"):
                repository.check_agreement(bundle, beside)
                if repository.publish(bundle, work):
                    undo.callback(repository.withdraw, bundle, work)
            with self.steps("activate"):
                before = repository.activate(bundle, beside, work)
                undo.callback(self._go_back, bundle, before, work)
                for url in urls:
                    reload(url, bundle)
            with self.steps("verify"):
                for url in urls:
                    verify(url, bundle)
            with self.steps("promote"):
                registry.promote(selection, self.request.alias, by=self.request.by)
            undo.pop_all()
            if proven.run is not None:
                proven.run.finish(self._metrics(proven), succeeded=True)

    @contextlib.contextmanager
    def _undoing(self, proven: _Proven) -> Iterator[contextlib.ExitStack]:
        try:
            with contextlib.ExitStack() as undo:
                yield undo
        except BaseException:
            if proven.run is not None:
                with contextlib.suppress(StlabError):
                    proven.run.finish(self._metrics(proven), succeeded=False)
            raise

    def _go_back(self, bundle: Bundle, config: str | None, work: Path) -> None:
        self.repository.go_back(bundle.model, config, work)
        for url in self.request.triton_urls:
            with contextlib.suppress(StlabError):
                reload(url, bundle, must_serve=False)

    def _staying(self, selection: Selection) -> set[int]:
        """The other versions that this repository serves for an alias that still names them."""
        named = {
            version
            for alias, version in selection.aliases.items()
            if alias not in {self.request.alias, "archived"}
        }
        return (set(self.repository.served(selection.model)) & named) - {selection.version}

    def _metrics(self, proven: _Proven) -> dict[str, float]:
        numbers = {f"{step}_seconds": s for step, s in self.steps.seconds.items()}
        for key in ("margin", "max_abs_error", "cases"):
            if proven.parity.get(key) is not None:
                numbers[f"parity_{key}"] = float(proven.parity[key])
        return {**numbers, "bundle_bytes": float(proven.bundle.size)}

    def _conclude(self, status: str, proven: _Proven) -> None:
        self.result = replace(
            self.result,
            status=status,
            bundle=bundle_summary(proven.bundle, reused=proven.reused),
            parity=proven.parity,
            served_version=proven.bundle.version,
        )


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The passed evidence that a version's tags name, if it is for these settings."""

    sha256: str | None
    uri: str

    @classmethod
    def of(cls, selection: Selection, settings: str) -> _Recorded:
        tags = selection.tags
        fits = tags.get("stlab.bundle.settings") == settings
        if tags.get("stlab.parity") != "passed" or not fits:
            return cls(None, "")
        return cls(tags.get("stlab.bundle.sha256"), tags.get("stlab.bundle.uri", ""))
