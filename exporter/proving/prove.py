"""Loads a candidate on a proving server and compares what is served with the truth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from exporter.errors import UnavailableError, ValidationFailedError
from exporter.parity.evidence import Check, Evidence
from exporter.parity.replay import replay_samples
from exporter.parity.served import calling, check_batching, check_numbers
from exporter.proving.control_model import check_server
from exporter.system.limits import exhausted, oom_kills
from exporter.triton.model_config import differences, parse
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.build.builder import Candidate
    from exporter.bundle import Bundle
    from exporter.proving.server import ProvingServer
    from triton_client import Model, TritonClient

__all__ = ["prove", "prove_again", "raise_if_failed"]

# A load that takes longer is suspected to hang, as a backend does whose threads cannot start.
_SUSPECT_SECONDS = 60.0
# What a lent server is told otherwise than the repository.
_OURS_ALONE = ("name", "model_warmup")


def prove(server: ProvingServer, candidate: Candidate, evidence: Evidence) -> None:
    """Load a candidate with its config and compare what is served with the truth.

    The checks go into the evidence; the verdict is its.

    Raises:
        UnavailableError: The server died or hangs.
    """
    bundle, truth = candidate.bundle, candidate.truth
    evidence.expect(bundle.outputs)
    with _served(server, bundle, evidence) as served:
        if served is None:
            return
        client, model = served

        def executed() -> tuple[int, int]:
            (counted,) = client.statistics(model.name, bundle.version)
            return counted.inference_count, counted.execution_count

        evidence.add(_check_config(bundle, model))
        infer = calling(model, bundle.outputs)
        if check_numbers(infer, truth, bundle.outputs, evidence).passed:
            check_batching(infer, truth, bundle.outputs, evidence, executed)


def prove_again(server: ProvingServer, bundle: Bundle) -> None:
    """Load a bundle that was proven before and replay its samples.

    Raises:
        ValidationFailedError: It is refused, or answers otherwise.
        UnavailableError: The server died or hangs.
    """
    evidence = Evidence()
    with _served(server, bundle, evidence) as served:
        if served is not None:
            replay_samples(served[1], bundle, evidence)
    raise_if_failed(evidence)


def _check_config(bundle: Bundle, model: Model) -> Check:
    ours = parse(bundle.config, where="the candidate's config")
    if model.name != bundle.model:
        for field in _OURS_ALONE:
            ours.ClearField(field)
    found = differences(ours, model.config)
    detail = "; ".join(found) or "the server sees the very config that is published"
    return Check("config", passed=not found, detail=detail)


@contextmanager
def _served(
    server: ProvingServer, bundle: Bundle, evidence: Evidence
) -> Iterator[tuple[TritonClient, Model] | None]:
    with server.client() as client:
        loaded = _load(server, client, bundle, evidence)
        try:
            yield (client, client.model(server.name(bundle), bundle.version)) if loaded else None
            client.metadata()  # a server that is gone has not answered wrongly
            if not evidence.passed:
                check_server(client, _backend(bundle))  # nor has one whose machine is at fault
        except TritonClientError as error:
            raise UnavailableError(
                f"the proving server failed while it was asked: {error.message}\n"
                f"{server.log_tail()}",
                hint="Run the export again; if it fails again, the model brings it down.",
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
                hint="Is there memory enough for the model? Run the export again.",
            ) from error
        said = " ".join(error.message.split())
        if exhausted(said) or oom_kills() > killed:
            raise UnavailableError(
                f"the proving server's machine cannot load the model: {said}",
                hint="Look at its memory and limits (ulimit -a), then run the export again.",
            ) from error
        evidence.add(Check("load", passed=False, detail=said))
        return False
    evidence.add(Check("load", passed=True, detail="the target release's server loads the model"))
    return True


def _load_unless_stuck(server: ProvingServer, client: TritonClient, bundle: Bundle) -> None:
    """Load the candidate; where that takes long, find out whether the server loads anything.

    Raises:
        TritonClientError: The server refuses it.
        UnavailableError: It does not load a model that is known to be good either.
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
        # What is stuck ends with the client.
        thread.shutdown(wait=False)


def raise_if_failed(evidence: Evidence) -> None:
    """Turn a failed verdict into the error that ends the export.

    Raises:
        ValidationFailedError: The evidence did not pass.
    """
    if evidence.passed:
        return
    failed = next(check for check in evidence.checks if not check.passed)
    hint = _HINTS.get(
        failed.name, "Look at the report; export with other settings or mend the model."
    )
    kind = "target" if failed.name == "load" else "parity"
    raise ValidationFailedError(
        f"what Triton serves is not what was registered: {failed.name}: {failed.detail}",
        hint=hint,
        kind=kind,
    )


_HINTS = {
    "load": "The message is the server's own. Where it names an opset, an IR version or a type, a "
    "newer --triton-release may load the model.",
    "config": "A tritonserver on PATH completes configurations itself; start it with "
    "--disable-auto-complete-config.",
    "dynamic batching": "Export with --batching off to serve the model unbatched.",
}
