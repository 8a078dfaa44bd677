"""The way of the data, top to bottom.

    resolve → pull → convert → configure → prove → publish → activate → verify → promote

Each step lives in a module of its own and hands on one value. Every prefix is safe to stop at:
until the last step the alias names what it named, and what fails on the way is undone.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.build.builder import BuildJob, Candidate, build
from exporter.build.isolated import build_apart, check_confinement
from exporter.commands.export.bundle_settings import settings_of
from exporter.commands.export.result import ExportResult, finished
from exporter.commands.export.reuse import Earlier
from exporter.commands.export.run_log import Journal
from exporter.commands.policy import check_expected, check_mover, who
from exporter.errors import ConflictError, NotFoundError, StlabError, ValidationFailedError
from exporter.formats import check as check_format
from exporter.parity.evidence import Evidence
from exporter.progress import Listener, Silent, Steps
from exporter.proven_bundle import Proven
from exporter.proving.prove import prove, prove_again, refuse
from exporter.proving.server import ground as open_ground
from exporter.registry import Promotion, Registry, Selection, clean_up, parts_of, promote
from exporter.repository import open_repository
from exporter.rollout.live_servers import check_servers
from exporter.rollout.rollout import Delivery, staying
from exporter.triton.releases import DEFAULT_RELEASE, release

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from exporter.commands.export.request import ExportRequest
    from exporter.proven_bundle import Recorded
    from exporter.proving.server import Ground

__all__ = ["export"]

Builder = Callable[[BuildJob, Evidence, Steps], Candidate]
"""Builds a bundle: here, or in a process of its own."""


def export(
    request: ExportRequest, listener: Listener | None = None, *, isolated: bool = True
) -> ExportResult:
    """Take a version from the registry to a served model, prove it, and move the alias.

    Args:
        request: What is asked for.
        listener: Told about every step.
        isolated: Whether the model is run and converted in a process of its own, as it is in any
            case where pickles may be loaded.

    Returns:
        The result; on failure with ``status`` ``failed`` and the error in it.
    """
    apart = isolated or request.allow_pickle
    return finished(_Export(request, Steps(listener or Silent()), build_apart if apart else build))


class _Export:
    def __init__(self, request: ExportRequest, steps: Steps, builder: Builder) -> None:
        self.request = request
        self.steps = steps
        self.builder = builder
        self.release = release(request.triton_release or DEFAULT_RELEASE)
        self.parts: dict[str, tuple[str, int]] = {}
        self.repository = open_repository(request.repository)
        self.result = ExportResult(
            "failed", request.model, request.alias, repository=request.repository
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the bundle's content, once the version is chosen."""
        return settings_of(self.request, self.release.name, self.parts)

    @property
    def earlier(self) -> Earlier:
        """What can be taken over of an earlier export."""
        return Earlier(self.request, self.settings, self.repository)

    def run(self) -> None:
        with self.steps("resolve"):
            registry = Registry.connect(self.request.tracking_uri)
            selection = self._select(registry)
            self.parts = parts_of(registry, selection.tags)
            recorded = self.earlier.recorded(selection)
            settled = self.earlier.settled(selection, recorded)
            if settled is None and recorded is None:
                check_format(self.request.format, self.release, self.request.prove_on)
                self._check_confinement()
        if settled is not None:
            if not self.request.dry_run:
                clean_up(registry, selection.model)
                self.repository.tidy(selection.model)
            self.result = self.result.concluded("unchanged", settled)
        elif self.request.dry_run:
            self.result = replace(self.result, status="planned", plan=self._plan(recorded))
        else:
            with self.repository.workspace(self.request.model) as work:
                clean_up(registry, selection.model)
                journal = Journal(registry, selection, self.request)
                proven = self._prove(registry, selection, recorded, journal, work)
                self._deliver(registry, selection, proven, journal, work)

    def _check_confinement(self) -> None:
        """Refuse before anything is pulled what would be refused before it is loaded."""
        request = self.request
        if request.allow_pickle:
            check_confinement(allow_pickle=True, unconfined=request.unconfined)

    def _select(self, registry: Registry) -> Selection:
        """Choose the version, and check that it may be promoted here and now."""
        request = self.request
        selection = registry.select(request.model, request.alias, request.version)
        self.result = replace(self.result, version=selection.version, previous=selection.previous)
        check_mover(request.alias, allow_manual=request.allow_manual)
        check_expected(request.alias, selection.previous, request.expect_current)
        check_servers(request.triton_urls)
        return selection

    def _plan(self, recorded: Recorded | None) -> tuple[str, ...]:
        begin = (
            (f"reuse bundle {recorded.sha256[:12]}", "replay its samples")
            if recorded
            else ("pull", f"convert to {self.request.format}", "configure", "prove")
        )
        servers = tuple(f"activate on {url}" for url in self.request.triton_urls)
        move = f"move '{self.request.alias}' to version {self.result.version}"
        return (*begin, f"publish to {self.request.repository}", *servers, move)

    def _prove(
        self,
        registry: Registry,
        selection: Selection,
        recorded: Recorded | None,
        journal: Journal,
        work: Path,
    ) -> Proven:
        """Prove the recorded bundle again, or a new one."""
        if recorded is not None:
            try:
                with self.steps("fetch"):
                    proven = self.earlier.fetch(registry, selection, recorded, work / "fetched")
                target = proven.bundle.release
                with self._ground(target, work) as ground, self.steps("prove"):
                    prove_again(ground, proven.bundle)
            except (NotFoundError, ValidationFailedError, ConflictError) as error:
                lost = not isinstance(error, ConflictError) or error.kind == "bundle"
                if self.request.alias == "prod" or error.kind == "batching" or not lost:
                    raise  # built once: what staging proved, or nothing
            else:
                return proven
        with self._ground(self.settings["release"], work) as ground:
            return self._build(registry, selection, ground, journal, work)

    def _ground(self, release_name: str, work: Path) -> AbstractContextManager[Ground]:
        folder = Path(tempfile.mkdtemp(prefix="ground-", dir=work))
        return open_ground(self.request.prove_on, folder, release(release_name), self.steps.say)

    def _build(
        self, registry: Registry, selection: Selection, ground: Ground, journal: Journal, work: Path
    ) -> Proven:
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
                prove(ground, candidate, evidence)
                refuse(evidence)
        except ValidationFailedError as error:
            with contextlib.suppress(StlabError):
                journal.keep_refusal(evidence, error, self.steps.seconds["total"], work)
            self.result = replace(
                self.result, parity=evidence.failed_summary(), report=journal.report
            )
            raise
        with self.steps("record"):
            bundle = candidate.bundle.with_facts(
                evidence={"passed": True, "checks": [check.name for check in evidence.checks]}
            )
            journal.keep(bundle, evidence, ground.description(), work)
            self.result = replace(self.result, report=journal.report)
        return Proven(bundle, evidence.summary(), journal.bundle_uri, reused=False)

    def _deliver(
        self,
        registry: Registry,
        selection: Selection,
        proven: Proven,
        journal: Journal,
        work: Path,
    ) -> None:
        """Publish, activate and verify; then vouch for the bundle and move the alias."""
        bundle, parity = proven.bundle, proven.parity

        delivery = Delivery(self.repository, self.request.triton_urls, work)
        succeeded = False
        try:
            # Under the lock: other aliases may have been moved while this version was proven.
            beside = staying(
                self.repository, selection, self.request.alias, registry.aliases(selection.model)
            )
            with delivery.deliver(bundle, beside, self.steps), self.steps("promote"):
                self.repository.check_held(selection.model)
                journal.vouch(bundle, parity)
                here = self.repository.identity()
                record = Promotion(bundle.sha256, proven.uri, who(), selection.previous, here)
                promote(registry, selection, self.request.alias, record)
            succeeded = True
            self.result = self.result.concluded("promoted", proven)
        finally:
            # Whatever came of it, it is done by now: a record that fails changes nothing.
            with contextlib.suppress(StlabError):
                journal.finish(bundle, parity, self.steps.seconds, succeeded=succeeded)
