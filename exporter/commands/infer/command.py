"""Send one inference request to a served model, with inputs from a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.arrays import write_npz
from exporter.commands.infer.inputs import read_inputs
from exporter.commands.infer.result import InferResult, storable
from exporter.errors import NotFoundError, StlabError, UnavailableError, UsageError
from exporter.triton.addresses import split_addresses
from exporter.triton.connection import CALL_SECONDS, connect
from triton_client import TritonClient
from triton_client.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    NotReady,
    Overloaded,
    TritonClientError,
    Unavailable,
)

__all__ = ["InferRequest", "first_address", "infer"]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """The request of `infer`.

    Attributes:
        model: The served model.
        inputs: A npz or JSON file with the inputs.
        url: The server's gRPC address; of several, the first is used.
        version: The version; None for the server's choice.
        outputs: The requested outputs; empty for all.
        output: A npz file that the outputs are written to as well, or None.
        deadline: Seconds that the inference may take.
    """

    model: str
    inputs: Path
    url: str
    version: int | None = None
    outputs: tuple[str, ...] = ()
    output: Path | None = None
    deadline: float = CALL_SECONDS


def infer(request: InferRequest) -> InferResult:
    """Run a served model on inputs; on failure the result holds the error."""
    try:
        return _infer(request)
    except StlabError as error:
        return InferResult(request.model, request.version).failed(error)


def first_address(urls: str) -> str:
    """Return the first of several addresses, which STLAB_TRITON_URL may hold."""
    return next(iter(split_addresses(urls)), "")


def _infer(request: InferRequest) -> InferResult:
    _check(request)
    inputs = read_inputs(request.inputs)
    url = first_address(request.url)
    with (
        connect(url, option="--url", timeout=request.deadline) as client,
        _translate_errors(client, request),
    ):
        model = client.model(request.model, request.version)
        begin = time.perf_counter()
        try:
            outputs = model.infer(
                inputs, outputs=request.outputs or None, deadline=request.deadline
            )
        except InvalidInput as error:
            takes = ", ".join(map(str, model.spec.inputs)) or "none"
            returns = ", ".join(map(str, model.spec.outputs))
            raise UsageError(
                error.message, hint=f"The model's inputs: {takes}; its outputs: {returns}."
            ) from error
        seconds = time.perf_counter() - begin
    if request.output is not None:
        arrays = {name: storable(name, array) for name, array in outputs.items()}
        try:
            write_npz(request.output, arrays)
        except OSError as error:
            raise UsageError(
                f"--output cannot be written: {error}", hint="Choose another."
            ) from error
    version = model.spec.version
    return InferResult(
        request.model, int(version) if version.isdecimal() else None, round(seconds, 6), outputs
    )


def _check(request: InferRequest) -> None:
    if not request.deadline > 0:
        raise UsageError("--deadline must be more than 0 seconds", hint="Omit it for a minute.")
    if request.output is None:
        return
    if request.output.suffix != ".npz":
        raise UsageError(
            f"--output must be a .npz, not {request.output.name}",
            hint="Use --json for JSON on stdout.",
        )
    if not request.output.parent.is_dir():
        raise UsageError(f"folder {request.output.parent} does not exist", hint="Check --output.")


@contextmanager
def _translate_errors(client: TritonClient, request: InferRequest) -> Iterator[None]:
    """Translate the client's errors of an inference; `connect` translates the others."""
    version = "" if request.version is None else f" version {request.version}"
    name = f"model {request.model!r}{version}"
    try:
        yield
    except ModelNotFound as error:
        raise NotFoundError(
            f"the Triton server at {client.url} has no {name}", hint=_served(client)
        ) from error
    except DeadlineExceeded as error:
        raise UnavailableError(
            f"{name} did not answer within {request.deadline:g} s",
            hint="Raise --deadline, or check what the server is busy with.",
            kind="deadline",
        ) from error
    except Overloaded as error:
        raise UnavailableError(
            f"the Triton server at {client.url} has too many requests: {error.message}",
            hint="Run the same command again later.",
            kind="overloaded",
        ) from error
    except NotReady as error:
        raise UnavailableError(
            f"{name} is not ready: {error.message}",
            hint="Run the same command again once it is loaded; the server's log has the reason.",
            kind="not_ready",
        ) from error
    except Unavailable as error:
        raise UnavailableError(
            f"the connection to the Triton server at {client.url} failed: {error.message}",
            hint="Run the same command again once it answers.",
        ) from error


def _served(client: TritonClient) -> str:
    try:
        names = client.models()
    except TritonClientError:
        names = ()
    if not names:
        return "Load it first, or use another server with --url."
    return f"The server has: {', '.join(names)}."
