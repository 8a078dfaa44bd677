"""Load a published version on live servers, and replay its samples there."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.bundle import Bundle
from exporter.errors import ConflictError, StlabError, ValidationFailedError
from exporter.parity.evidence import Check, Evidence
from exporter.parity.served import replay_samples
from exporter.triton.connection import connect
from triton_client import TritonClient
from triton_client.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NotReady,
    PermissionDenied,
    TritonClientError,
    Unavailable,
)

__all__ = ["answers", "check_servers", "reload", "unload", "verify", "wrong_answers"]

LOAD_SECONDS = 600.0
# The names of exported models do not begin with an underscore.
_PROBE_MODEL = "_stlab-mode-probe"
_NOT_EXPLICIT = "explicit model load / unload is not allowed"


def reload(url: str, bundle: Bundle, *, must_serve: bool = True) -> None:
    """Reload a model on a server, and check that it serves the version.

    When undoing, the version need not be served afterwards.

    Raises:
        UnavailableError: The server does not answer.
        ConflictError: The server serves another repository.
        ValidationFailedError: The server fails to load the version.
    """
    with connect(url, timeout=LOAD_SECONDS) as client:
        try:
            client.repository.load(bundle.model)
        except (Unavailable, DeadlineExceeded, PermissionDenied):
            raise
        except TritonClientError as error:
            raise _load_error(url, bundle, error) from error
        if must_serve:
            _check_version(client, url, bundle)


def unload(url: str, model: str) -> None:
    """Unload a model from a server.

    Raises:
        UnavailableError: The server does not answer.
        ValidationFailedError: The server rejects the request.
    """
    with connect(url) as client:
        client.repository.unload(model)


def answers(url: str, bundle: Bundle) -> bool:
    """Whether a server has this version ready, and its outputs for the samples are in budget.

    Raises:
        UnavailableError: The server does not answer.
    """
    with connect(url) as client:
        return _replay(client, bundle).passed


def verify(url: str, bundle: Bundle) -> Evidence:
    """Replay the bundle's samples against a server.

    Returns:
        The evidence, passed.

    Raises:
        ValidationFailedError: The version is not ready, or an output is out of budget.
        UnavailableError: The server does not answer.
    """
    with connect(url) as client:
        evidence = _replay(client, bundle)
        if not evidence.passed:
            client.metadata()  # fails if the server is gone: then no check has failed
    if not evidence.passed:
        raise wrong_answers(url, bundle, evidence)
    return evidence


def wrong_answers(url: str, bundle: Bundle, evidence: Evidence) -> ValidationFailedError:
    """Return the error for a server whose outputs are out of budget."""
    return ValidationFailedError(
        f"the outputs of the server at {url} differ from the proven outputs of version "
        f"{bundle.version} of '{bundle.model}': {evidence.reason}",
        hint="Compare its GPU, driver and Triton release with those of the report.",
        kind="parity",
    )


def check_servers(urls: Sequence[str]) -> None:
    """Check that every server answers and accepts load requests, before anything is changed.

    Raises:
        UnavailableError: A server does not answer.
        ConflictError: A server is in mode ``none`` or ``poll``, or requires credentials.
    """
    for url in urls:
        with connect(url) as client:
            try:
                # Does nothing in explicit mode, and is rejected in the others.
                client.repository.unload(_PROBE_MODEL)
            except (Unavailable, DeadlineExceeded, PermissionDenied):
                raise
            except ModelNotFound:
                continue
            except TritonClientError as error:
                if _NOT_EXPLICIT not in error.message:
                    raise
                raise ConflictError(
                    f"the server at {url} accepts no load requests: it runs with "
                    "--model-control-mode=none or poll",
                    hint="Start it with --model-control-mode=explicit. Or omit --triton-url: in "
                    "mode 'poll' the server loads the version by itself, in mode 'none' it must be "
                    "restarted.",
                ) from error


def _replay(client: TritonClient, bundle: Bundle) -> Evidence:
    evidence = Evidence()
    try:
        replay_samples(client.model(bundle.model, bundle.version), bundle, evidence)
    except (ModelNotFound, NotReady) as error:
        evidence.add(Check("ready", passed=False, detail=error.message))
    return evidence


def _load_error(url: str, bundle: Bundle, error: TritonClientError) -> StlabError:
    text = " ".join(error.message.split())
    if "failed to poll from model repository" in text or "no such file" in text.lower():
        return ConflictError(
            f"the server at {url} does not serve this repository: {text}",
            hint="Pass the --repository that the server at --triton-url serves.",
        )
    return ValidationFailedError(
        f"the server at {url} cannot load version {bundle.version} of '{bundle.model}': {text}",
        hint="The server kept serving the previous version; the message is the server's.",
        kind="target",
    )


def _check_version(client: TritonClient, url: str, bundle: Bundle) -> None:
    """Check that the server's config contains the version."""
    try:
        served = client.model(bundle.model, bundle.version).config.versions
    except (ModelNotFound, NotReady):
        served = ()
    if bundle.version not in served:
        raise ConflictError(
            f"the server at {url} loaded '{bundle.model}', but not version {bundle.version} of it",
            hint="Check that it serves this --repository. If the model was loaded with a config "
            "override, unload it there first.",
        )
