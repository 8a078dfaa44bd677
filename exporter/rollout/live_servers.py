"""Makes a published version the served one on live servers, and checks what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.errors import ConflictError, StlabError, ValidationFailedError
from exporter.parity.evidence import Check, Evidence
from exporter.parity.replay import replay_samples
from exporter.triton.connection import connect
from triton_client.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NotReady,
    PermissionDenied,
    TritonClientError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.bundle import Bundle
    from triton_client import TritonClient

__all__ = ["answers", "check_servers", "reload", "unload", "verify", "wrong_answers"]

LOAD_SECONDS = 600.0
# No registered model that is exported has a name that begins so.
_NOBODYS = "_stlab-mode-probe"
_NOT_EXPLICIT = "explicit model load / unload is not allowed"


def reload(url: str, bundle: Bundle, *, must_serve: bool = True) -> None:
    """Tell a server to read a model's directory again, and check the version.

    Args:
        url: The server's gRPC address.
        bundle: The version that it is to serve.
        must_serve: Whether to insist on it; False when going back to another one.

    Raises:
        UnavailableError: The server does not answer.
        ConflictError: It serves another repository.
        ValidationFailedError: It refuses to load the version.
    """
    with connect(url, timeout=LOAD_SECONDS) as client:
        try:
            client.repository.load(bundle.model)
        except (Unavailable, DeadlineExceeded, PermissionDenied):
            raise
        except TritonClientError as error:
            raise _refusal(url, bundle, error) from error
        if must_serve:
            _check_version(client, url, bundle)


def unload(url: str, model: str) -> None:
    """Tell a server to serve a model no longer.

    Raises:
        UnavailableError: The server does not answer.
        ValidationFailedError: It refuses.
    """
    with connect(url) as client:
        client.repository.unload(model)


def answers(url: str, bundle: Bundle) -> bool:
    """Whether a server has this version ready, and answers its samples as it was proven.

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
        ValidationFailedError: An answer is out of budget.
        UnavailableError: The server does not answer.
    """
    with connect(url) as client:
        evidence = _replay(client, bundle)
        if not evidence.passed:
            client.metadata()  # a server that is gone has not answered wrongly
    if not evidence.passed:
        raise wrong_answers(url, bundle, evidence)
    return evidence


def wrong_answers(url: str, bundle: Bundle, evidence: Evidence) -> ValidationFailedError:
    """Return the error for a server whose answers are out of budget."""
    return ValidationFailedError(
        f"the server at {url} does not answer as version {bundle.version} of "
        f"'{bundle.model}' was proven: {evidence.reason}",
        hint="Compare its GPU, driver and Triton release with the proven ones.",
        kind="parity",
    )


def check_servers(urls: Sequence[str]) -> None:
    """Check that every server answers and takes load commands, before anything is changed.

    Raises:
        UnavailableError: One does not answer.
        ConflictError: One is in mode ``none`` or ``poll``, or wants credentials.
    """
    for url in urls:
        with connect(url) as client:
            try:
                # In explicit mode there is nothing to do; in the others that is not allowed.
                client.repository.unload(_NOBODYS)
            except (Unavailable, DeadlineExceeded, PermissionDenied):
                raise
            except ModelNotFound:
                continue
            except TritonClientError as error:
                if _NOT_EXPLICIT not in error.message:
                    raise
                raise ConflictError(
                    f"the server at {url} does not take load commands: it runs in the mode 'none' "
                    "or 'poll'",
                    hint="Start it with --model-control-mode=explicit. Or leave --triton-url out: "
                    "in the mode 'poll' a server finds the version itself, in 'none' it has to be "
                    "restarted.",
                ) from error


def _replay(client: TritonClient, bundle: Bundle) -> Evidence:
    evidence = Evidence()
    try:
        replay_samples(client.model(bundle.model, bundle.version), bundle, evidence)
    except (ModelNotFound, NotReady) as error:
        evidence.add(Check("ready", passed=False, detail=error.message))
    return evidence


def _refusal(url: str, bundle: Bundle, error: TritonClientError) -> StlabError:
    text = " ".join(error.message.split())
    if "failed to poll from model repository" in text or "no such file" in text.lower():
        return ConflictError(
            f"the server at {url} does not serve this repository: {text}",
            hint="Give --repository and --triton-url that belong together.",
        )
    return ValidationFailedError(
        f"the server at {url} refuses version {bundle.version} of '{bundle.model}': {text}",
        hint="It served the version before all along; the message is the server's own.",
        kind="target",
    )


def _check_version(client: TritonClient, url: str, bundle: Bundle) -> None:
    """Check that the config that the server reads names the version."""
    try:
        served = client.model(bundle.model, bundle.version).config.version_policy.specific.versions
    except (ModelNotFound, NotReady):
        served = ()
    if bundle.version not in served:
        raise ConflictError(
            f"the server at {url} loaded '{bundle.model}', but not version {bundle.version} of it",
            hint="Does it serve this --repository? A load-time config override hides files: unload "
            "the model there first.",
        )
