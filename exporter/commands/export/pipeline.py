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
from pathlib import Path

from exporter.build.builder import BuildJob, Candidate, build
from exporter.build.isolated import build_isolated, check_confinement
from exporter.bundle import BundleSettings
from exporter.commands.export.bundle_settings import settings_of
from exporter.commands.export.request import ExportRequest
from exporter.commands.export.result import ExportResult
from exporter.commands.export.reuse import ReusableExport
from exporter.commands.export.run_log import ExportLog
from exporter.commands.policy import check_expected, check_prod_allowed, triggered_by
from exporter.commands.result import run_job
from exporter.errors import ConflictError, NotFoundError, StlabError, ValidationFailedError
from exporter.formats import check as check_format
from exporter.parity.evidence import Evidence
from exporter.progress import Listener, Steps
from exporter.proven_bundle import BundleRef, ProvenBundle
from exporter.proving.prove import prove, prove_again, raise_if_failed
from exporter.proving.proving_server import ProvingServer, open_server
from exporter.registry import (
    PromotionRecord,
    Registry,
    Selection,
    clean_up,
    pipeline_models,
    promote,
)
from exporter.repository import open_repository
from exporter.rollout.live_servers import check_servers
from exporter.rollout.rollout import Rollout, versions_to_keep
from exporter.triton.releases import DEFAULT_RELEASE, release

__all__ = ["export"]

Builder = Callable[[BuildJob, Evidence, Steps], Candidate]
"""Builds a bundle: in this process, or in a sandboxed one."""


def export(
    request: ExportRequest, listener: Listener | None = None, *, isolated: bool = True
) -> ExportResult:
    """Convert a registered version, prove it, serve it, and move the alias.

    Args:
        request: The request.
        listener: Receives progress events.
        isolated: Whether to run and convert the model in a sandboxed process; always the case with
            ``allow_pickle``.

    Returns:
        The result; on failure its ``status`` is ``failed``, and it holds the error.
    """
    builder = build_isolated if isolated or request.allow_pickle else build
    return run_job(_Export(request, Steps(listener), builder))


class _Export:
    def __init__(self, request: ExportRequest, steps: Steps, builder: Builder) -> None:
        self.request = request
        self.steps = steps
        self.builder = builder
        self.release = release(request.triton_release or DEFAULT_RELEASE)
        self.parts: dict[str, tuple[str, int]] = {}
        self.repository = open_repository(request.repository)
        self.result = ExportResult(
            model=request.model, alias=request.alias, repository=request.repository
        )

    @property
    def settings(self) -> BundleSettings:
        """The settings that decide the bundle's content, once the version is selected."""
        return settings_of(self.request, self.release.name, self.parts)

    @property
    def earlier(self) -> ReusableExport:
        """An earlier export that may be reused."""
        return ReusableExport(self.request, self.settings, self.repository)

    def run(self) -> None:
        with self.steps("resolve"):
            registry = Registry.connect(self.request.tracking_uri)
            selection = self._select(registry)
            self.parts = pipeline_models(registry, selection.tags)
            recorded = self.earlier.find_bundle(selection)
            up_to_date = self.earlier.find_up_to_date(selection, recorded)
            if up_to_date is None and recorded is None:
                check_format(self.request.format, self.release, self.request.prove_on)
                self._check_confinement()
        if up_to_date is not None:
            if not self.request.dry_run:
                clean_up(registry, selection.model)
                self.repository.clean_up(selection.model)
            self.result = self.result.with_bundle("unchanged", up_to_date)
        elif self.request.dry_run:
            self.result = replace(self.result, status="planned", plan=self._plan(recorded))
        else:
            with self.repository.workspace(self.request.model) as work:
                clean_up(registry, selection.model)
                log = ExportLog(registry, selection, self.request)
                proven = self._prove(registry, selection, recorded, log, work)
                self._roll_out(registry, selection, proven, log, work)

    def _check_confinement(self) -> None:
        """Fail before the download if pickles are allowed but cannot be sandboxed."""
        request = self.request
        if request.allow_pickle:
            check_confinement(allow_pickle=True, unconfined=request.unconfined)

    def _select(self, registry: Registry) -> Selection:
        """Select the version, and check that the alias may be moved and the servers answer."""
        request = self.request
        selection = registry.select(request.model, request.alias, request.version)
        self.result = replace(self.result, version=selection.version, previous=selection.previous)
        check_prod_allowed(request.alias, allow_manual=request.allow_manual)
        check_expected(request.alias, selection.previous, request.expect_current)
        check_servers(request.triton_urls)
        return selection

    def _plan(self, recorded: BundleRef | None) -> tuple[str, ...]:
        first = (
            (f"reuse bundle {recorded.sha256[:12]}", "replay its samples")
            if recorded
            else ("pull", f"convert to {self.request.format}", "configure", "prove")
        )
        servers = tuple(f"activate on {url}" for url in self.request.triton_urls)
        last = f"move '{self.request.alias}' to version {self.result.version}"
        return (*first, f"publish to {self.request.repository}", *servers, last)

    def _prove(
        self,
        registry: Registry,
        selection: Selection,
        recorded: BundleRef | None,
        log: ExportLog,
        work: Path,
    ) -> ProvenBundle:
        """Prove the recorded bundle again, or build and prove a new one."""
        if recorded is not None:
            try:
                with self.steps("fetch"):
                    proven = self.earlier.fetch(registry, selection, recorded, work / "fetched")
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
            return self._build(registry, selection, server, log, work)

    def _open_server(self, release_name: str, work: Path) -> AbstractContextManager[ProvingServer]:
        folder = Path(tempfile.mkdtemp(prefix="proving-", dir=work))
        return open_server(self.request.prove_on, folder, release(release_name), self.steps.say)

    def _build(
        self,
        registry: Registry,
        selection: Selection,
        server: ProvingServer,
        log: ExportLog,
        work: Path,
    ) -> ProvenBundle:
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
            log.save(bundle, evidence, server.description(), work)
            self.result = replace(self.result, report=log.report)
        return ProvenBundle(bundle, evidence.summary(), log.bundle_uri, reused=False)

    def _roll_out(
        self,
        registry: Registry,
        selection: Selection,
        proven: ProvenBundle,
        log: ExportLog,
        work: Path,
    ) -> None:
        """Publish, activate and verify; then tag the version and move the alias."""
        bundle, parity = proven.bundle, proven.parity
        rollout = Rollout(self.repository, self.request.triton_urls, work)
        succeeded = False
        try:
            # Read again: other aliases may have moved while this version was proven.
            other_versions = versions_to_keep(
                self.repository,
                selection.model,
                self.request.alias,
                registry.aliases(selection.model),
                selection.versions,
            )
            with rollout.apply(bundle, other_versions, self.steps), self.steps("promote"):
                self.repository.ensure_locked(selection.model)
                log.tag_version(bundle, parity)
                record = PromotionRecord(
                    bundle=bundle.sha256,
                    uri=proven.uri,
                    by=triggered_by(),
                    previous=selection.previous,
                    repository=self.repository.identity(),
                )
                promote(registry, selection, self.request.alias, record)
            succeeded = True
            self.result = self.result.with_bundle("promoted", proven)
        finally:
            # The outcome is settled: a failure to log it must not change it.
            with contextlib.suppress(StlabError):
                log.finish(bundle, parity, self.steps.seconds, succeeded=succeeded)
