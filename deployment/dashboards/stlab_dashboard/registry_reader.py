"""Reads status, samples and reports from the registry and the repository."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition
from typing import Any, TypeVar

from cachetools import TTLCache, cached
from starlette.concurrency import run_in_threadpool

from exporter.bundle import SAMPLES, Bundle
from exporter.commands.export.report import render_html
from exporter.commands.status.command import StatusRequest, status
from exporter.commands.status.result import AliasState, StatusResult
from exporter.errors import ConflictError, NotFoundError, StlabError, ValidationFailedError
from exporter.interface import Tensor
from exporter.parity.evidence import Batching
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.samples import load_samples
from exporter.proven_bundle import BundleRef, fetch_proven, find_published
from exporter.registry import Registry
from exporter.repository import open_repository
from exporter.triton.addresses import expand_addresses
from stlab_dashboard.settings import Settings

__all__ = ["RegistryReader", "Samples"]

T = TypeVar("T")

# A bundle never changes; the limit is for the memory that it takes.
_BUNDLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one bundle, with the tolerances, and the outputs of its model."""

    references: ReferenceSet
    outputs: tuple[Tensor, ...]

    @property
    def cases(self) -> dict[str, ReferenceCase]:
        """The samples by name."""
        return {answer.case.name: answer for answer in self.references.cases}


class RegistryReader:
    """Reads the registry and the repository in threads, and caches what it read for seconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._status = _cached(status, 1, settings.cache_seconds)
        self._samples = _cached(partial(self._with_bundle, _read_samples), 4)
        self._report = _cached(partial(self._with_bundle, _render_report), 16)

    async def status(self, *, refresh: bool = False) -> StatusResult:
        """Return what ``stlab status`` reports, read again to refresh it; an error is in it."""
        settings = self._settings
        request = StatusRequest(
            repository=settings.repository,
            tracking_uri=settings.tracking_uri,
            triton_urls=expand_addresses(settings.triton_urls),
            quick=settings.quick,
        )
        if refresh:
            self._status.cache_clear()
        result: StatusResult = await run_in_threadpool(self._status, request)
        return result

    async def alias(self, model: str, alias: str) -> AliasState:
        """Return the state of an alias.

        Raises:
            NotFoundError: It is not set, or the registry does not answer.
        """
        result = await self.status()
        for entry in result.models:
            for state in entry.aliases:
                if (entry.model, state.alias) == (model, alias):
                    return state
        if result.error is not None:
            raise NotFoundError(result.error["message"], hint=result.error["hint"])
        raise NotFoundError(f"'{alias}' of '{model}' is not set", hint="See the Registry page.")

    async def samples(self, model: str, state: AliasState) -> Samples:
        """Return the samples of an alias's bundle.

        Raises:
            StlabError: There is no bundle with passed evidence, or it cannot be read.
        """
        samples: Samples = await _read_recorded(self._samples, model, state)
        return samples

    async def report(self, model: str, state: AliasState) -> str:
        """Return the parity report of an alias's bundle, as a page; it fails as `samples` does."""
        page: str = await _read_recorded(self._report, model, state)
        return page

    def _with_bundle(
        self, read: Callable[[Bundle], T], model: str, version: int, recorded: BundleRef
    ) -> T:
        """Read the bundle from the repository where its files are intact, else the registry."""
        try:
            repository = open_repository(self._settings.repository)
            published = find_published(repository, model, version, recorded)
        except StlabError:
            published = None  # the registry has it too
        if published is not None:
            return read(published.bundle)
        registry = Registry.connect(self._settings.tracking_uri)
        with tempfile.TemporaryDirectory(prefix="stlab-dashboard-") as folder:
            return read(fetch_proven(registry, model, version, recorded, Path(folder)).bundle)


def _cached(read: Callable[..., Any], entries: int, seconds: float = _BUNDLE_SECONDS) -> Any:
    """Cache a function by its arguments; visitors who come together wait for one read."""
    return cached(TTLCache(entries, seconds), condition=Condition())(read)


async def _read_recorded(read: Callable[..., Any], model: str, state: AliasState) -> Any:
    """Read the bundle of an alias in a thread."""
    if state.record is None:
        raise ConflictError(
            f"version {state.version} of '{model}' has no passing evidence for '{state.alias}'",
            hint=next((drift.fix for drift in state.drift), ""),
            kind="evidence",
        )
    recorded = BundleRef(state.record.bundle, state.record.uri)
    return await run_in_threadpool(read, model, state.version, recorded)


def _read_samples(bundle: Bundle) -> Samples:
    references = load_samples(bundle.path / SAMPLES, Batching(bundle.max_batch_size))
    return Samples(references, bundle.outputs)


def _render_report(bundle: Bundle) -> str:
    try:
        return render_html(bundle.passed_report() or {})
    except Exception as error:  # a report of other fields than the template knows
        raise ValidationFailedError(
            f"the report of version {bundle.version} cannot be rendered: {error}",
            hint="Export the version again with this release.",
            kind="report",
        ) from error
