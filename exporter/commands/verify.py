"""Asks live servers, at any time, whether they still answer as an alias was proven.

    resolve → fetch → replay

Nothing is changed anywhere, and no lock is taken.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle import json_number
from exporter.commands.export.result import bundle_summary, interrupted
from exporter.errors import (
    ConflictError,
    StlabError,
    UnavailableError,
    UsageError,
    ValidationFailedError,
)
from exporter.names import alias_name, model_name
from exporter.parity.evidence import Evidence
from exporter.parity.replay import replay_samples
from exporter.progress import Listener, Silent, Steps
from exporter.proven_bundle import Proven, Recorded, fetch_proven, find_published, named
from exporter.registry import Registry
from exporter.repository import open_repository
from exporter.triton.connection import connect
from triton_client.errors import ModelNotFound, NotReady

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.bundle import Bundle
    from exporter.repository import Repository

__all__ = ["ServerVerdict", "VerifyRequest", "VerifyResult", "verify"]

SCHEMA = 1
DEFAULT_URL = "localhost:8001"
# Of several servers the worst decides: a wrong answer, then none of this version, then none at all.
_WORST_FIRST = (3, 5, 6)


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """One verification, as asked for.

    Attributes:
        model: The registered model.
        alias: The alias whose bundle is replayed.
        repository: The model repository that the bundle is read from, where it has it whole.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of the servers; none for the one on this machine.
    """

    model: str
    alias: str
    repository: str = "model_repository"
    tracking_uri: str = "sqlite:///mlflow.db"
    triton_urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        model_name(self.model)
        alias_name(self.alias)


@dataclass(frozen=True, slots=True)
class ServerVerdict:
    """What one server answered.

    Attributes:
        url: Its gRPC address.
        passed: Whether every answer is within its budget.
        margin: The worst error ÷ budget; None where nothing was compared.
        max_abs_error: The largest abs(answer - reference); None likewise.
        cases: How many answers were compared.
        worst_output: The output with the worst margin, with the case; empty likewise.
        reason: What failed first; empty where nothing did.
        error: The error that this server alone would end the command with.
    """

    url: str
    passed: bool
    margin: float | None = None
    max_abs_error: float | None = None
    cases: int = 0
    worst_output: str = ""
    reason: str = ""
    error: StlabError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints of a server."""
        return {
            "url": self.url,
            "passed": self.passed,
            "margin": self.margin,
            "max_abs_error": self.max_abs_error,
            "cases": self.cases,
            "worst_output": self.worst_output,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The object that ``--json`` prints.

    Attributes:
        model: The registered model.
        alias: The alias.
        version: The version that it names.
        bundle: Digest, format and size of what it took, and where that was read from.
        servers: What each server answered.
        seconds: By step, with ``total``.
        error: Kind, message and hint.
        exit_code: The process's.
    """

    model: str
    alias: str
    version: int | None = None
    bundle: Mapping[str, Any] | None = None
    servers: tuple[ServerVerdict, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    exit_code: int = 0

    @property
    def status(self) -> str:
        """``passed``, or ``failed``: a server did, or there was nothing to ask it."""
        return "passed" if self.error is None else "failed"

    def failed(self, error: StlabError) -> VerifyResult:
        """Return the result with an error in it."""
        return replace(self, error=error.as_dict(), exit_code=error.exit_code)

    def as_dict(self) -> dict[str, Any]:
        """Return the object, with the same keys in every case."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "model": self.model,
            "alias": self.alias,
            "version": self.version,
            "bundle": self.bundle,
            "servers": [server.as_dict() for server in self.servers],
            "seconds": dict(self.seconds),
            "error": self.error,
        }


def verify(request: VerifyRequest, listener: Listener | None = None) -> VerifyResult:
    """Replay the samples of the bundle that an alias took against live servers.

    Args:
        request: What is asked for.
        listener: Told about every step.

    Returns:
        The result; what went wrong is in it.
    """
    steps = Steps(listener or Silent())
    job = _Verification(request, steps)
    try:
        with tempfile.TemporaryDirectory(prefix="stlab-verify-") as folder:
            job.run(Path(folder))
    except StlabError as error:
        job.result = job.result.failed(error)
    except KeyboardInterrupt:
        job.result = job.result.failed(interrupted())
    return replace(job.result, seconds=steps.seconds)


class _Verification:
    def __init__(self, request: VerifyRequest, steps: Steps) -> None:
        self.request = request
        self.steps = steps
        self.result = VerifyResult(request.model, request.alias)
        # What was read of an object store stays as long as this does.
        self.repository: Repository | None = None

    def run(self, folder: Path) -> None:
        with self.steps("resolve"):
            registry = Registry.connect(self.request.tracking_uri)
            version, recorded = named(registry, self.request.model, self.request.alias)
            self.result = replace(self.result, version=version)
        with self.steps("fetch"):
            proven = self._find(registry, version, recorded, folder)
        with self.steps("replay"):
            for url in self.request.triton_urls or (DEFAULT_URL,):
                self.steps.say(url)
                verdict = _ask(url, proven.bundle)
                self.result = replace(self.result, servers=(*self.result.servers, verdict))
        errors = [server.error for server in self.result.servers if server.error is not None]
        if errors:
            self.result = self.result.failed(
                min(errors, key=lambda error: _WORST_FIRST.index(error.exit_code))
            )

    def _find(self, registry: Registry, version: int, recorded: Recorded, folder: Path) -> Proven:
        """Return the bundle, from the repository where it is whole there."""
        model = self.request.model
        try:
            self.repository = open_repository(self.request.repository)
            published = find_published(self.repository, model, version, recorded)
        except UnavailableError:
            published = None  # what is asked about are the servers, and the registry has it too
        source = "registry" if published is None else "repository"
        proven = published or fetch_proven(registry, model, version, recorded, folder)
        bundle = {**bundle_summary(proven.bundle, reused=True), "source": source}
        del bundle["reused"]
        self.result = replace(self.result, bundle=bundle)
        return proven


def _ask(url: str, bundle: Bundle) -> ServerVerdict:
    evidence = Evidence()
    try:
        with connect(url) as client:
            try:
                replay_samples(client.model(bundle.model, bundle.version), bundle, evidence)
            except (ModelNotFound, NotReady) as error:
                raise ConflictError(
                    f"the server at {url} does not have version {bundle.version} of "
                    f"'{bundle.model}' ready: {error.message}",
                    hint=f"See what to do with: stlab status {bundle.model} --triton-url {url}",
                    kind="not_ready",
                ) from error
            if not evidence.passed:
                client.metadata()  # a server that is gone has not answered wrongly
    except UsageError:
        raise
    except StlabError as error:
        return ServerVerdict(url, passed=False, reason=error.message, error=error)
    wrong = None
    if not evidence.passed:
        wrong = ValidationFailedError(
            f"the server at {url} does not answer as version {bundle.version} of "
            f"'{bundle.model}' was proven: {evidence.reason}",
            hint="Compare its GPU, driver and Triton release with the proven ones.",
            kind="parity",
        )
    worst = max(evidence.outputs.values(), key=lambda output: output.margin)
    return ServerVerdict(
        url,
        evidence.passed,
        json_number(evidence.margin),
        json_number(evidence.max_abs_error),
        # A case that failed with an error was asked, and is counted as one that was compared.
        evidence.cases,
        f"{worst.name} ({worst.worst_case})" if worst.worst_case else worst.name,
        evidence.reason,
        wrong,
    )
