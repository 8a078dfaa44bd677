"""What the registry and the repository say: status, samples and reports, by the exporter's code."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.bundle import SAMPLES
from exporter.commands.export.report import Report, write_html
from exporter.commands.status.command import StatusRequest, status
from exporter.errors import ConflictError, NotFoundError, StlabError, ValidationFailedError
from exporter.parity.evidence import Batching
from exporter.parity.samples import load_samples
from exporter.proven_bundle import BundleRef, fetch_proven, find_published
from exporter.registry import Registry
from exporter.repository import open_repository
from exporter.triton.addresses import expand_addresses
from stlab_dashboard.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.bundle import Bundle
    from exporter.commands.status.result import AliasState, StatusResult
    from exporter.interface import Tensor
    from exporter.parity.reference_set import ReferenceSet
    from stlab_dashboard.settings import Settings

__all__ = ["Samples", "Sources"]

T = TypeVar("T")

# What a digest names never changes; it is forgotten for the memory that it takes.
_BUNDLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one bundle.

    Attributes:
        model: The registered model.
        version: The version that they are of.
        truth: The inputs with the registry model's answers, and the budgets.
        outputs: The outputs of the model.
    """

    model: str
    version: int
    references: ReferenceSet
    outputs: tuple[Tensor, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of the samples."""
        return tuple(answer.case.name for answer in self.references.cases)

    def inputs(self, case: str) -> dict[str, Any]:
        """Return the inputs of one sample by name, as arrays."""
        return dict(self._answer(case).case.inputs)

    def expected(self, case: str) -> dict[str, Any]:
        """Return what the registry model answers to a sample, as arrays."""
        return dict(self._answer(case).outputs)

    def _answer(self, case: str) -> Any:
        return next(answer for answer in self.references.cases if answer.case.name == case)


class Sources:
    """Everything that is read of the registry and the repository, in threads, kept for seconds.

    Args:
        settings: Where they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._status: Kept[StatusResult] = Kept(settings.cache_seconds)
        self._samples: Kept[Samples] = Kept(_BUNDLE_SECONDS, most=4)
        self._reports: Kept[str] = Kept(_BUNDLE_SECONDS)

    async def status(self, *, anew: bool = False) -> StatusResult:
        """Return what ``stlab status`` says; what could not be looked at is in it."""
        settings = self._settings
        request = StatusRequest(
            repository=settings.repository,
            tracking_uri=settings.tracking_uri,
            triton_urls=expand_addresses(settings.triton_urls),
            quick=settings.quick,
        )
        return await self._status.get("status", lambda: status(request), anew=anew)

    async def alias(self, model: str, alias: str) -> AliasState:
        """Return what an alias of a model names.

        Raises:
            NotFoundError: It names nothing, or the registry does not answer.
        """
        result = await self.status()
        for entry in result.models:
            for state in entry.aliases:
                if (entry.model, state.alias) == (model, alias):
                    return state
        if result.error is not None:
            raise NotFoundError(result.error["message"], hint=result.error["hint"])
        raise NotFoundError(
            f"'{alias}' of '{model}' names no version", hint="See the Registry page."
        )

    async def samples(self, model: str, state: AliasState) -> Samples:
        """Return the samples of the bundle that an alias took.

        Raises:
            StlabError: There is no proven bundle, or it cannot be read.
        """

        def read(bundle: Bundle) -> Samples:
            references = load_samples(bundle.path / SAMPLES, Batching(bundle.max_batch_size))
            return Samples(model, bundle.version, references, bundle.outputs)

        recorded = _recorded(model, state)
        return await self._samples.get(
            recorded.sha256, lambda: self._with_bundle(model, state.version, recorded, read)
        )

    async def report(self, model: str, state: AliasState) -> str:
        """Return the parity report of the bundle that an alias took, as a page.

        Raises:
            StlabError: There is no proven bundle, or it cannot be read.
        """
        recorded = _recorded(model, state)
        return await self._reports.get(
            recorded.sha256, lambda: self._with_bundle(model, state.version, recorded, _page)
        )

    def _with_bundle(
        self, model: str, version: int, recorded: BundleRef, read: Callable[[Bundle], T]
    ) -> T:
        """Read the bundle where it lies whole: in the repository, else in the registry."""
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


def _recorded(model: str, state: AliasState) -> BundleRef:
    if state.record is None:
        raise ConflictError(
            f"nothing says that version {state.version} of '{model}' was proven for "
            f"'{state.alias}'",
            hint=next((drift.fix for drift in state.drift), ""),
            kind="evidence",
        )
    return BundleRef(state.record.bundle, state.record.uri)


def _page(bundle: Bundle) -> str:
    content = bundle.passed_report() or {}
    with tempfile.TemporaryDirectory(prefix="stlab-dashboard-") as folder:
        path = Path(folder, "report.html")
        try:
            write_html(Report(content), path)
        except Exception as error:  # a report of other fields than the template knows
            raise ValidationFailedError(
                f"the report of version {bundle.version} cannot be shown: {error}",
                hint="Export the version again with this release.",
                kind="report",
            ) from error
        return path.read_text()
