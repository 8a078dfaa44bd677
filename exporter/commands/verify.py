"""Asks live servers, at any time, whether they still answer as an alias was proven.

    resolve → fetch → replay

Nothing is changed anywhere, and no lock is taken.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle import json_number
from exporter.commands.result import JobResult, bundle_summary, run_job
from exporter.errors import (
    ConflictError,
    StlabError,
    UnavailableError,
    UsageError,
)
from exporter.names import DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI, alias_name, model_name
from exporter.parity.evidence import Evidence
from exporter.parity.replay import replay_samples
from exporter.progress import Listener, Silent, Steps
from exporter.proven_bundle import (
    BundleRef,
    ProvenBundle,
    bundle_for_alias,
    fetch_proven,
    find_published,
)
from exporter.registry import Registry
from exporter.repository import open_repository
from exporter.rollout.live_servers import wrong_answers
from exporter.triton.connection import connect
from triton_client.errors import ModelNotFound, NotReady

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.bundle import Bundle
    from exporter.repository import Repository

__all__ = ["ServerVerdict", "VerifyRequest", "VerifyResult", "verify"]

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
    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI
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
class VerifyResult(JobResult):
    """The object that ``--json`` prints.

    Attributes:
        status: ``passed``, or ``failed``: a server did, or no server could be checked.
        model: The registered model.
        alias: The alias.
        version: The version that it points to.
        bundle: Digest, format and size of what it took, and where that was read from.
        servers: What each server answered.
    """

    model: str = ""
    alias: str = ""
    version: int | None = None
    bundle: Mapping[str, Any] | None = None
    servers: tuple[ServerVerdict, ...] = ()

    def content(self) -> dict[str, Any]:
        """See `CommandResult.content`."""
        return {
            "status": self.status,
            "model": self.model,
            "alias": self.alias,
            "version": self.version,
            "bundle": self.bundle,
            "servers": [server.as_dict() for server in self.servers],
            "seconds": dict(self.seconds),
        }


def verify(request: VerifyRequest, listener: Listener | None = None) -> VerifyResult:
    """Replay the samples of the bundle that an alias took against live servers.

    Args:
        request: What is asked for.
        listener: Told about every step.

    Returns:
        The result; what went wrong is in it.
    """
    with tempfile.TemporaryDirectory(prefix="stlab-verify-") as folder:
        return run_job(_Verification(request, Steps(listener or Silent()), Path(folder)))


class _Verification:
    def __init__(self, request: VerifyRequest, steps: Steps, folder: Path) -> None:
        self.request = request
        self.steps = steps
        self.folder = folder
        self.result = VerifyResult(model=request.model, alias=request.alias)
        # What was read of an object store stays as long as this does.
        self.repository: Repository | None = None

    def run(self) -> None:
        with self.steps("resolve"):
            registry = Registry.connect(self.request.tracking_uri)
            version, recorded = bundle_for_alias(registry, self.request.model, self.request.alias)
            self.result = replace(self.result, version=version)
        with self.steps("fetch"):
            proven = self._find(registry, version, recorded)
        with self.steps("replay"):
            for url in self.request.triton_urls or (DEFAULT_URL,):
                self.steps.say(url)
                verdict = _ask(url, proven.bundle)
                self.result = replace(self.result, servers=(*self.result.servers, verdict))
        errors = [server.error for server in self.result.servers if server.error is not None]
        if errors:
            raise min(errors, key=lambda error: _WORST_FIRST.index(error.exit_code))
        self.result = replace(self.result, status="passed")

    def _find(self, registry: Registry, version: int, recorded: BundleRef) -> ProvenBundle:
        """Return the bundle, from the repository where it is whole there."""
        model = self.request.model
        try:
            self.repository = open_repository(self.request.repository)
            published = find_published(self.repository, model, version, recorded)
        except UnavailableError:
            published = None  # what is asked about are the servers, and the registry has it too
        source = "registry" if published is None else "repository"
        proven = published or fetch_proven(registry, model, version, recorded, self.folder)
        self.result = replace(self.result, bundle=bundle_summary(proven.bundle, source=source))
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
    wrong = None if evidence.passed else wrong_answers(url, bundle, evidence)
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
