"""Makes a published version the served one on live servers, and checks what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.errors import ConflictError, StlabError, UnavailableError, ValidationFailed
from exporter.parity.evidence import Evidence
from exporter.parity.replay import replay_samples
from triton_client import TritonClient
from triton_client.errors import ModelNotFound, NotReady, TritonClientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.bundle import Bundle

__all__ = ["check_servers", "reload", "serving", "unload", "verify"]

LOAD_SECONDS = 600.0
CALL_SECONDS = 60.0


def reload(url: str, bundle: Bundle, *, must_serve: bool = True) -> None:
    """Tell a server to read a model's directory again, and check the version.

    Args:
        url: The server's gRPC address.
        bundle: The version that it is to serve.
        must_serve: Whether to insist on it; False when going back to another one.

    Raises:
        UnavailableError: The server does not answer.
        ConflictError: It does not take commands, or serves another repository.
        ValidationFailed: It refuses to load the version.
    """
    with TritonClient(url, timeout=LOAD_SECONDS) as client:
        _check_live(client, url)
        try:
            client.repository.load(bundle.model)
        except TritonClientError as error:
            raise _refusal(url, bundle, error) from error
        if must_serve:
            _check_version(client, url, bundle)


def unload(url: str, model: str) -> None:
    """Tell a server to serve a model no longer.

    Raises:
        UnavailableError: The server does not answer, or refuses.
    """
    with TritonClient(url, timeout=CALL_SECONDS) as client:
        try:
            client.repository.unload(model)
        except TritonClientError as error:
            raise UnavailableError(
                f"the server at {url} does not unload '{model}': {error}"
            ) from error


def serving(url: str, bundle: Bundle) -> bool:
    """Whether a server has this version ready.

    Raises:
        UnavailableError: The server does not answer.
    """
    with TritonClient(url, timeout=CALL_SECONDS) as client:
        _check_live(client, url)
        try:
            return client.model(bundle.model, bundle.version).ready()
        except (ModelNotFound, NotReady):
            return False


def verify(url: str, bundle: Bundle) -> Evidence:
    """Replay the bundle's samples against a server.

    Returns:
        The evidence, passed.

    Raises:
        ValidationFailed: An answer is out of budget.
        UnavailableError: The server does not answer.
    """
    evidence = Evidence()
    with TritonClient(url, timeout=CALL_SECONDS) as client:
        _check_live(client, url)
        replay_samples(client.model(bundle.model, bundle.version), bundle, evidence)
        if not evidence.passed and not client.live():
            raise _unreachable(url)
    if not evidence.passed:
        raise ValidationFailed(
            f"the server at {url} does not answer as version {bundle.version} of "
            f"'{bundle.model}' was proven: {evidence.reason}",
            hint="Compare its GPU, driver and Triton release with the proven ones.",
            kind="parity",
        )
    return evidence


def check_servers(urls: Sequence[str]) -> None:
    """Check that every server answers, before anything is changed.

    Raises:
        UnavailableError: One does not.
    """
    for url in urls:
        with TritonClient(url, timeout=CALL_SECONDS) as client:
            _check_live(client, url)


def _check_live(client: TritonClient, url: str) -> None:
    if not client.live():
        raise _unreachable(url)


def _unreachable(url: str) -> UnavailableError:
    return UnavailableError(
        f"no Triton server answers at {url}",
        hint="Start it, or correct --triton-url (the gRPC port, 8001 by default).",
    )


def _refusal(url: str, bundle: Bundle, error: TritonClientError) -> StlabError:
    text = " ".join(error.message.split())
    if "explicit model load / unload is not allowed" in text:
        return ConflictError(
            f"the server at {url} does not take load commands",
            hint="Start it with --model-control-mode=explicit, or leave --triton-url out and "
            "restart it.",
        )
    if "failed to poll from model repository" in text or "no such file" in text.lower():
        return ConflictError(
            f"the server at {url} does not serve this repository: {text}",
            hint="Give --repository and --triton-url that belong together.",
        )
    return ValidationFailed(
        f"the server at {url} refuses version {bundle.version} of '{bundle.model}': {text}",
        hint="It served the version before all along; the message is the server's own.",
        kind="target",
    )


def _check_version(client: TritonClient, url: str, bundle: Bundle) -> None:
    """Check that the version is ready and that the server reads the config we wrote."""
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
