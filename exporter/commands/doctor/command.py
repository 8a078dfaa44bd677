"""Check everything that an export needs, with a hint for whatever is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.commands.doctor.installed import Check, installed, is_writable
from exporter.commands.result import CommandResult
from exporter.errors import ConflictError, StlabError, UnavailableError, UsageError
from exporter.names import DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI
from exporter.repository import ObjectRepository, open_repository
from exporter.rollout.live_servers import check_servers
from exporter.text.redaction import redact
from exporter.triton.connection import connect
from exporter.triton.releases import DEFAULT_RELEASE, RELEASES, Release, release

__all__ = ["DoctorRequest", "DoctorResult", "doctor"]

ANSWER_SECONDS = 10.0
# Written and deleted, to check the permissions for an object store.
_PROBE = ".stlab-doctor"


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """The request of `doctor`.

    Attributes:
        repository: The model repository.
        tracking_uri: The MLflow registry.
        registry_named: Whether the registry was configured, so that it must be reachable.
        triton_urls: gRPC addresses of servers.
        triton_release: The Triton release; empty for the default.
    """

    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI
    registry_named: bool = False
    triton_urls: tuple[str, ...] = ()
    triton_release: str = ""


@dataclass(frozen=True, slots=True)
class DoctorResult(CommandResult):
    """The result of `doctor`.

    Attributes:
        release: The Triton release.
        checks: All checks.
    """

    release: str = ""
    checks: tuple[Check, ...] = ()

    def content(self) -> dict[str, Any]:
        """See `CommandResult.content`."""
        return {
            "status": "failed" if self.exit_code else "ok",
            "release": self.release,
            "checks": [check.as_dict() for check in self.checks],
        }


def doctor(request: DoctorRequest) -> DoctorResult:
    """Run all checks; one that cannot run is a failed check.

    Raises:
        UsageError: The release is unknown.
    """
    target = release(request.triton_release or DEFAULT_RELEASE)
    checks = (
        _target(target),
        *installed(target),
        _registry(request),
        _repository(request.repository),
        *map(_server, request.triton_urls),
    )
    result = DoctorResult(target.name, checks)
    failing = [check for check in checks if check.exit_code]
    if not failing:
        return result
    # What is missing locally comes before what does not answer, which may recover by itself.
    first = min(failing, key=lambda check: check.exit_code)
    error = UsageError if first.exit_code == UsageError.exit_code else UnavailableError
    names = ", ".join(dict.fromkeys(check.name for check in failing))
    return result.failed(error(f"missing or unreachable: {names}", hint=first.hint))


def _target(target: Release) -> Check:
    found = f"Triton {target.name}: ONNX Runtime {target.onnxruntime}, opset {target.max_opset}"
    if target.assumed:
        return Check(
            "release",
            "warning",
            f"{found}, assumed from the newest known release",
            f"Use --triton-release {list(RELEASES)[-1]}, or a newer stlab.",
        )
    return Check("release", "ok", found)


def _registry(request: DoctorRequest) -> Check:
    from exporter.registry import Registry

    try:
        models = Registry.connect(request.tracking_uri).models()
    except StlabError as error:
        if not request.registry_named:
            hint = "Set MLFLOW_TRACKING_URI to your registry."
            return Check("registry", "warning", error.message, hint)
        return _failed("registry", error)
    count = f"{len(models)} registered model{'' if len(models) == 1 else 's'}"
    return Check("registry", "ok", f"{redact(request.tracking_uri)}, {count}")


def _repository(url: str) -> Check:
    try:
        repository = open_repository(url)
        if isinstance(repository, ObjectRepository):
            repository.store.replace(_PROBE, b"")
            repository.store.delete(_PROBE)
            return Check("repository", "ok", f"{url} is writable")
    except StlabError as error:
        return _failed("repository", error)
    folder = Path(url)
    # The staging folder is next to it.
    for path in (folder, folder.resolve().parent):
        if not is_writable(path):
            return Check(
                "repository",
                "failed",
                f"{path} is not writable",
                "Give this user the right to write it, or use another --repository.",
                2,
            )
    note = "" if folder.is_dir() else ", created on first use"
    return Check("repository", "ok", f"{url} is writable{note}")


def _server(url: str) -> Check:
    name = f"server {redact(url)}"
    try:
        with connect(url, timeout=ANSWER_SECONDS) as client:
            version = client.metadata().version
        try:
            check_servers([url])
        except ConflictError as error:
            return Check(name, "warning", f"Triton {version}: {error.message}", error.hint)
    except StlabError as error:
        return _failed(name, error)
    known = (entry.name for entry in RELEASES.values() if entry.core == version)
    found = f"Triton {version} (release {next(known, 'unknown')}), accepts load requests"
    return Check(name, "ok", found)


def _failed(name: str, error: StlabError) -> Check:
    # A usage error is the caller's to fix; any other error means that the target is unavailable.
    code = UsageError.exit_code if isinstance(error, UsageError) else UnavailableError.exit_code
    return Check(name, "failed", error.message, error.hint, code)
