"""Replay an alias's samples on live servers.

    resolve → fetch → replay

Nothing is changed, and no lock is acquired.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle, json_number
from exporter.commands.request import AliasRequest
from exporter.commands.result import Job, JobResult, bundle_summary
from exporter.errors import ConflictError, StlabError, UnavailableError, UsageError
from exporter.parity.evidence import Evidence
from exporter.parity.served import replay_samples
from exporter.progress import Listener
from exporter.proven_bundle import bundle_for_alias, fetch_proven, find_published
from exporter.registry import Registry
from exporter.repository import open_repository
from exporter.rollout.live_servers import wrong_answers
from exporter.triton.connection import connect
from triton_client.errors import ModelNotFound, NotReady

__all__ = ["ServerVerdict", "VerifyRequest", "VerifyResult", "verify"]

DEFAULT_URL = "localhost:8001"
# The worst server decides: wrong outputs, then a version that is not ready, then no answer.
_WORST_FIRST = (3, 5, 6)


@dataclass(frozen=True, slots=True)
class VerifyRequest(AliasRequest):
    """The request of `verify`.

    Attributes:
        triton_urls: gRPC addresses of the servers; empty for ``localhost:8001``.
    """

    triton_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerVerdict:
    """The verdict on one server.

    Attributes:
        url: Its gRPC address.
        passed: Whether every output is within its budget.
        margin: The worst error ÷ budget; None if nothing was compared.
        max_abs_error: The largest abs(output - reference); None if nothing was compared.
        cases: Number of compared cases.
        worst_output: The output with the worst margin, and its case; empty if nothing was compared.
        reason: The first failure; empty if there is none.
        error: The error of this server.
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
        """Return the JSON object of a server."""
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
    """The result of `verify`.

    Attributes:
        status: ``passed`` or ``failed``.
        model: The registered model.
        alias: The alias.
        version: The version that it points to.
        bundle: Digest, format and size of its bundle, and where it was read from.
        servers: The verdict on every server.
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
    """Replay the samples of an alias's bundle on live servers.

    The listener receives progress events. On failure the result's ``status`` is ``failed``, and it
    holds the error.
    """
    result = VerifyResult(model=request.model, alias=request.alias)
    return _Verification(request, result, listener).finish()


class _Verification(Job[VerifyRequest, VerifyResult]):
    def run(self) -> None:
        request, model = self.request, self.request.model
        with self.steps("resolve"):
            registry = Registry.connect(request.tracking_uri)
            version, recorded = bundle_for_alias(registry, model, request.alias)
            self.result = replace(self.result, version=version)
        with tempfile.TemporaryDirectory(prefix="stlab-verify-") as folder:
            with self.steps("fetch"):
                try:
                    # Referenced until the end: an object store's keeps the bundle's files.
                    repository = open_repository(request.repository)
                    published = find_published(repository, model, version, recorded)
                except UnavailableError:
                    published = None  # the registry has the bundle as well
                source = "registry" if published is None else "repository"
                bundle = (
                    published or fetch_proven(registry, model, version, recorded, Path(folder))
                ).bundle
                self.result = replace(self.result, bundle=bundle_summary(bundle, source=source))
            with self.steps("replay"):
                for url in request.triton_urls or (DEFAULT_URL,):
                    self.steps.say(url)
                    verdict = _verify_server(url, bundle)
                    self.result = replace(self.result, servers=(*self.result.servers, verdict))
        errors = [server.error for server in self.result.servers if server.error is not None]
        if errors:
            raise min(errors, key=lambda error: _WORST_FIRST.index(error.exit_code))
        self.result = replace(self.result, status="passed")


def _verify_server(url: str, bundle: Bundle) -> ServerVerdict:
    evidence = Evidence()
    try:
        with connect(url) as client:
            try:
                replay_samples(client.model(bundle.model, bundle.version), bundle, evidence)
            except (ModelNotFound, NotReady) as error:
                raise ConflictError(
                    f"the server at {url} does not have version {bundle.version} of "
                    f"'{bundle.model}' ready: {error.message}",
                    hint=f"Find the fix with: stlab status {bundle.model} --triton-url {url}",
                    kind="not_ready",
                ) from error
            if not evidence.passed:
                client.metadata()  # fails if the server is gone: then no check has failed
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
        # A case that failed with an error counts as compared.
        evidence.cases,
        f"{worst.name} ({worst.worst_case})" if worst.worst_case else worst.name,
        evidence.reason,
        wrong,
    )
