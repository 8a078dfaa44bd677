"""Load a candidate on a proving server, and compare its outputs with the reference."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from exporter.bundle import Bundle
from exporter.errors import UnavailableError, ValidationFailedError
from exporter.parity.evidence import Check, Evidence
from exporter.parity.served import check_batching, check_outputs, make_infer, replay_samples
from exporter.proving.control_model import check_server
from exporter.proving.proving_server import ProvingServer
from exporter.system.limits import exhausted, oom_kills
from exporter.triton.model_config import differences, parse
from triton_client import Model, TritonClient
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from exporter.build.builder import Candidate

__all__ = ["prove", "prove_again", "raise_if_failed"]

# A longer load may hang, such as that of a backend whose threads cannot start.
_SUSPECT_SECONDS = 60.0
# The fields that `RemoteServer` changes.
_CHANGED_FIELDS = ("name", "model_warmup")


def prove(server: ProvingServer, candidate: Candidate, evidence: Evidence) -> None:
    """Load a candidate with its config, and compare its outputs with the reference.

    Raises:
        UnavailableError: The server died or hangs.
    """
    bundle, references = candidate.bundle, candidate.references
    evidence.expect(bundle.outputs)
    with _served(server, bundle, evidence) as served:
        if served is None:
            return
        client, model = served

        def executed() -> tuple[int, int]:
            (counted,) = client.statistics(model.name, bundle.version)
            return counted.inference_count, counted.execution_count

        evidence.add(_check_config(bundle, model))
        infer = make_infer(model, bundle.outputs)
        if check_outputs(infer, references, bundle.outputs, evidence).passed:
            check_batching(infer, references, bundle.outputs, evidence, executed)


def prove_again(server: ProvingServer, bundle: Bundle) -> None:
    """Load a bundle that was proven before, and replay its samples.

    Raises:
        ValidationFailedError: The server rejects it, or an output is out of budget.
        UnavailableError: The server died or hangs.
    """
    evidence = Evidence()
    with _served(server, bundle, evidence) as served:
        if served is not None:
            replay_samples(served[1], bundle, evidence)
    raise_if_failed(evidence)


def _check_config(bundle: Bundle, model: Model) -> Check:
    expected = parse(bundle.config, where="the candidate's config")
    if model.name != bundle.model:
        for field in _CHANGED_FIELDS:
            expected.ClearField(field)
    found = differences(expected, model.config.raw)
    detail = "; ".join(found) or "the server's config equals the published one"
    return Check("config", passed=not found, detail=detail)


@contextmanager
def _served(
    server: ProvingServer, bundle: Bundle, evidence: Evidence
) -> Iterator[tuple[TritonClient, Model] | None]:
    with server.client() as client:
        loaded = _load(server, client, bundle, evidence)
        try:
            yield (client, client.model(server.name(bundle), bundle.version)) if loaded else None
            client.metadata()  # fails if the server is gone: then no check has failed
            if not evidence.passed:
                check_server(client, _backend(bundle))  # fails if the machine is at fault
        except TritonClientError as error:
            raise UnavailableError(
                f"the proving server failed during a request: {error.message}\n{server.log_tail()}",
                hint="Run the export again; if it fails again, the model crashes the server.",
            ) from error


def _backend(bundle: Bundle) -> str:
    return str(parse(bundle.config, where="the candidate's config").backend)


def _load(server: ProvingServer, client: TritonClient, bundle: Bundle, evidence: Evidence) -> bool:
    killed = oom_kills()
    try:
        _load_unless_stuck(server, client, bundle)
    except TritonClientError as error:
        if not client.live():
            raise UnavailableError(
                f"the proving server died while it loaded the model:\n{server.log_tail()}",
                hint="Check that there is enough memory for the model, then run the export again.",
            ) from error
        message = " ".join(error.message.split())
        if exhausted(message) or oom_kills() > killed:
            raise UnavailableError(
                f"the proving server's machine cannot load the model: {message}",
                hint="Check its memory and limits (ulimit -a), then run the export again.",
            ) from error
        evidence.add(Check("load", passed=False, detail=message))
        return False
    evidence.add(Check("load", passed=True, detail="the target release's server loads the model"))
    return True


def _load_unless_stuck(server: ProvingServer, client: TritonClient, bundle: Bundle) -> None:
    """Load the candidate; if that takes long, check that the server loads a trivial model.

    Raises:
        TritonClientError: The server rejects the candidate.
        UnavailableError: The server does not load the trivial model either.
    """
    thread = ThreadPoolExecutor(1)
    try:
        loading = thread.submit(server.load, client, bundle)
        try:
            return loading.result(_SUSPECT_SECONDS)
        except TimeoutError:
            check_server(client, _backend(bundle))
        return loading.result()
    finally:
        # A stuck request ends with the client.
        thread.shutdown(wait=False)


def raise_if_failed(evidence: Evidence) -> None:
    """Raise the error that ends the export if a check failed.

    Raises:
        ValidationFailedError: A check failed; the kind is ``target`` or ``parity``.
    """
    if evidence.passed:
        return
    failed = next(check for check in evidence.checks if not check.passed)
    hint = _HINTS.get(
        failed.name, "Check the report, then fix the model or export it with other settings."
    )
    kind = "target" if failed.name == "load" else "parity"
    what = _FAILURES.get(failed.name, f"check '{failed.name}' failed")
    raise ValidationFailedError(
        f"{what}: {failed.detail}",
        hint=hint,
        kind=kind,
    )


_FAILURES = {
    "load": "Triton does not load the converted model",
    "config": "Triton's configuration of the model is not the published one",
    "numbers": "the converted model answers differently from the registered model",
    "dynamic batching": "batched requests are answered differently from the registered model",
}
_HINTS = {
    "load": "The message is the server's. If it names an opset, an IR version or a type, a newer "
    "--triton-release may load the model.",
    "config": "A tritonserver on PATH completes configurations itself; start it with "
    "--disable-auto-complete-config.",
    "dynamic batching": "Export with --batching off to serve the model unbatched.",
}
