"""Looks at everything that an export needs, and says what is missing and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.commands.doctor.installed import Check, installed, is_writable
from exporter.commands.result import CommandResult
from exporter.errors import ConflictError, StlabError, UnavailableError, UsageError
from exporter.names import DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI
from exporter.repository import ObjectRepository, open_repository
from exporter.rollout.live_servers import check_servers
from exporter.text.redaction import redact
from exporter.triton.connection import connect
from exporter.triton.releases import DEFAULT_RELEASE, RELEASES, release

if TYPE_CHECKING:
    from exporter.triton.releases import Release

__all__ = ["DoctorRequest", "DoctorResult", "doctor"]

_KINDS = {error.exit_code: error.default_kind for error in (UsageError, UnavailableError)}
ANSWER_SECONDS = 10.0
# What is asked of a store that it must be able to do: write an object, and delete it.
_PROBE = ".stlab-doctor"


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """What to look at.

    Attributes:
        repository: The model repository.
        tracking_uri: The MLflow registry.
        registry_named: Whether somebody named the registry, so that it has to be there.
        triton_urls: gRPC addresses of servers.
        triton_release: The Triton release that is to serve; the default where empty.
    """

    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI
    registry_named: bool = False
    triton_urls: tuple[str, ...] = ()
    triton_release: str = ""


@dataclass(frozen=True, slots=True)
class DoctorResult(CommandResult):
    """The object that ``--json`` prints.

    Attributes:
        release: The release that was looked for.
        checks: What was looked at.
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
    """Look at everything; what cannot be looked at is a line like others.

    Raises:
        UsageError: There is no such release.
    """
    target = release(request.triton_release or DEFAULT_RELEASE)
    checks = (
        _target(target),
        *installed(target),
        _registry(request),
        _repository(request.repository),
        *map(_server, request.triton_urls),
    )
    failing = [check for check in checks if check.exit_code]
    if not failing:
        return DoctorResult(target.name, checks)
    # What is missing here is to be mended first: waiting does not bring it.
    first = min(failing, key=lambda check: check.exit_code)
    names = ", ".join(dict.fromkeys(check.name for check in failing))
    error = {
        "kind": _KINDS[first.exit_code],
        "message": f"what is needed, or was named, is not there: {names}",
        "hint": first.hint,
    }
    return DoctorResult(target.name, checks, error=error, exit_code=first.exit_code)


def _target(target: Release) -> Check:
    found = f"Triton {target.name}: ONNX Runtime {target.onnxruntime}, opset {target.max_opset}"
    if target.assumed:
        return Check(
            "release",
            "warning",
            f"{found}, as in the newest that is known",
            f"Use --triton-release {list(RELEASES)[-1]}, or a newer stlab.",
        )
    return Check("release", "ok", found)


def _registry(request: DoctorRequest) -> Check:
    from exporter.registry import Registry

    try:
        models = Registry.connect(request.tracking_uri).models()
    except StlabError as error:
        if not request.registry_named:
            hint = "Set MLFLOW_TRACKING_URI to where your models are registered."
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
            return Check("repository", "ok", f"{url} can be written")
    except StlabError as error:
        return _failed("repository", error)
    folder = Path(url)
    # Candidates are prepared beside it.
    for path in (folder, folder.resolve().parent):
        if not is_writable(path):
            return Check(
                "repository",
                "failed",
                f"{path} cannot be written",
                "Give this user the right to write it, or name another one with --repository.",
                2,
            )
    there = "" if folder.is_dir() else ", made when it is first used"
    return Check("repository", "ok", f"{url} can be written{there}")


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
    of = next((known.name for known in RELEASES.values() if known.core == version), "unknown")
    return Check(name, "ok", f"Triton {version} (release {of}), takes load commands")


def _failed(name: str, error: StlabError) -> Check:
    # What is asked wrongly is for the caller to mend; all else does not answer as it should.
    code = UsageError.exit_code if isinstance(error, UsageError) else UnavailableError.exit_code
    return Check(name, "failed", error.message, error.hint, code)
