"""The export pipeline.

    resolve → pull → convert → configure → prove → publish → activate → verify → promote

Every step is in a module of its own. The pipeline can stop after any of them: the alias moves in
the last one, and a failure undoes the changes before it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from exporter.build.builder import BuildJob, Candidate, build
from exporter.build.isolated import build_isolated, check_confinement
from exporter.commands.export.request import ExportRequest
from exporter.commands.export.result import ExportResult
from exporter.commands.export.reuse import ReusableExport, settings_of
from exporter.commands.export.run_log import ExportLog
from exporter.commands.promotion import AliasJob, check_movable, check_strength
from exporter.errors import ConflictError, NotFoundError, StlabError, ValidationFailedError
from exporter.formats import check as check_format
from exporter.parity.evidence import Evidence
from exporter.progress import Listener, Steps
from exporter.proven_bundle import BundleRef, ProvenBundle
from exporter.proving.prove import prove, prove_again, raise_if_failed
from exporter.proving.proving_server import ProvingServer, open_server
from exporter.registry import Registry, clean_up, pipeline_models
from exporter.rollout.live_servers import check_servers
from exporter.rollout.rollout import Rollout
from exporter.triton.releases import DEFAULT_RELEASE, release

__all__ = ["export"]

Builder = Callable[[BuildJob, Evidence, Steps], Candidate]
"""Builds a bundle: in this process, or in a sandboxed one."""


def export(
    request: ExportRequest, listener: Listener | None = None, *, isolated: bool = True
) -> ExportResult:
    """Convert a registered version, prove it, serve it, and move the alias.

    The listener receives progress events. With ``isolated``, and always with ``allow_pickle``, the
    model is run and converted in a sandboxed process. On failure the result's ``status`` is
    ``failed``, and it holds the error.
    """
    builder = build_isolated if isolated or request.allow_pickle else build
    return _Export(request, listener, builder).finish()


class _Export(AliasJob[ExportRequest]):
    def __init__(self, request: ExportRequest, listener: Listener | None, builder: Builder) -> None:
        self.builder = builder
        self.release = release(request.triton_release or DEFAULT_RELEASE)
        super().__init__(request, listener)

    def run(self) -> None:
        request = self.request
        with self.steps("resolve"):
            registry = Registry.connect(request.tracking_uri)
            selection = registry.select(request.model, request.alias, request.version)
            self.registry, self.selection = registry, selection
            self.result = replace(
                self.result, version=selection.version, previous=selection.previous
            )
            check_movable(
                request.alias,
                selection.previous,
                request.expect_current,
                allow_manual=request.allow_manual,
            )
            check_servers(request.triton_urls)
            self.parts = pipeline_models(registry, selection.tags)
            self.settings = settings_of(request, self.release.name, self.parts)
            self.earlier = ReusableExport(request, self.settings, self.repository, selection)
            recorded = self.earlier.find_bundle()
            up_to_date = self.earlier.find_up_to_date(recorded)
            if up_to_date is None and recorded is None:
                check_format(request.format, self.release, request.prove_on)
                if request.allow_pickle:  # fail before the download
                    check_confinement(allow_pickle=True, unconfined=request.unconfined)
        if up_to_date is not None:
            if not request.dry_run:
                clean_up(registry, selection.model)
                self.repository.clean_up(selection.model)
            self.result = self.result.with_bundle("unchanged", up_to_date)
        elif request.dry_run:
            self.result = replace(self.result, status="planned", plan=self._plan(recorded))
        else:
            with self.repository.workspace(request.model) as work:
                clean_up(registry, selection.model)
                self.log = ExportLog(registry, selection, request)
                self._roll_out(self._prove(recorded, work), work)

    def _plan(self, recorded: BundleRef | None) -> tuple[str, ...]:
        first = (
            (f"reuse bundle {recorded.sha256[:12]}", "replay its samples")
            if recorded
            else ("pull", f"convert to {self.request.format}", "configure", "prove")
        )
        servers = tuple(f"activate on {url}" for url in self.request.triton_urls)
        last = f"move '{self.request.alias}' to version {self.result.version}"
        return (*first, f"publish to {self.request.repository}", *servers, last)

    def _prove(self, recorded: BundleRef | None, work: Path) -> ProvenBundle:
        """Prove the recorded bundle again, or build and prove a new one."""
        if recorded is not None:
            try:
                with self.steps("fetch"):
                    proven = self.earlier.fetch(self.registry, recorded, work / "fetched")
                target = proven.bundle.release
                with self._open_server(target, work) as server, self.steps("prove"):
                    prove_again(server, proven.bundle)
            except (NotFoundError, ValidationFailedError, ConflictError) as error:
                unusable = not isinstance(error, ConflictError) or error.kind == "bundle"
                if self.request.alias == "prod" or error.kind == "batching" or not unusable:
                    raise  # prod takes only the bundle that staging proved
            else:
                return proven
        with self._open_server(self.settings["release"], work) as server:
            return self._build(server, work)

    def _open_server(self, release_name: str, work: Path) -> AbstractContextManager[ProvingServer]:
        folder = Path(tempfile.mkdtemp(prefix="proving-", dir=work))
        return open_server(self.request.prove_on, folder, release(release_name), self.steps.say)

    def _build(self, server: ProvingServer, work: Path) -> ProvenBundle:
        registry, selection, log = self.registry, self.selection, self.log
        evidence = Evidence()
        (work / "bundle").mkdir()
        try:
            with self.steps("pull"):
                artifact = registry.pull(selection.model, selection.version, work / "artifact")
                parts = {
                    place: registry.pull(model, version, work / place)
                    for place, (model, version) in self.parts.items()
                }
            job = BuildJob(
                selection.model,
                selection.version,
                artifact,
                work / "bundle",
                self.settings,
                self.request.samples,
                self.request.batching == "require",
                self.request.allow_pickle,
                parts,
                self.request.timeout,
                self.request.model_memory,
                self.request.unconfined,
            )
            candidate = self.builder(job, evidence, self.steps)
            with self.steps("prove"):
                prove(server, candidate, evidence)
                raise_if_failed(evidence)
        except ValidationFailedError as error:
            with contextlib.suppress(StlabError):
                log.save_rejection(evidence, error, self.steps.seconds["total"], work)
            self.result = replace(self.result, parity=evidence.failed_summary(), report=log.report)
            raise
        with self.steps("record"):
            bundle = candidate.bundle.with_facts(
                evidence={"passed": True, "checks": [check.name for check in evidence.checks]}
            )
            uri = log.save(bundle, evidence, server.description(), work)
            self.result = replace(self.result, report=log.report)
        return ProvenBundle(bundle, evidence.summary(), uri, reused=False)

    def _roll_out(self, proven: ProvenBundle, work: Path) -> None:
        """Publish, activate and verify; then tag the version and move the alias."""
        rollout = Rollout(self.repository, self.request.triton_urls, work)
        tag = partial(self.log.tag_version, proven)
        request, succeeded = self.request, False
        try:
            self.result = replace(self.result, parity=proven.parity)
            weak = check_strength(
                request.alias,
                proven.parity,
                allow_weak=request.allow_weak_evidence,
                require_coverage=request.require_coverage,
            )
            reason = "weak evidence, accepted with --allow-weak-evidence" if weak else ""
            self.promote(rollout, self.registry, self.selection, proven, reason=reason, before=tag)
            succeeded = True
            self.result = self.result.with_bundle("promoted", proven)
        finally:
            # The outcome is settled: a failure to log it must not change it.
            with contextlib.suppress(StlabError):
                self.log.finish(proven, self.steps.seconds, succeeded=succeeded)
