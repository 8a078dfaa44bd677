"""Asks a served model once: inputs from a file, answers as they came."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.arrays import write_npz
from exporter.commands.infer.inputs import read_inputs
from exporter.commands.infer.result import InferResult, storable
from exporter.errors import NotFoundError, StlabError, UnavailableError, UsageError
from exporter.triton.addresses import split_addresses
from exporter.triton.connection import CALL_SECONDS, connect
from triton_client.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    NotReady,
    Overloaded,
    TritonClientError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triton_client import TritonClient
    from triton_client.types import ModelSpec

__all__ = ["InferRequest", "first_address", "infer"]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference, as asked for.

    Attributes:
        model: The served model.
        inputs: A npz or JSON file with the inputs.
        url: The server's gRPC address; of several, the first is asked.
        version: The version; the server chooses by default.
        outputs: The outputs wanted; none means all.
        output: A npz that the answer is written to as well.
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
    """Ask a model; what went wrong is in the result."""
    try:
        return _infer(request)
    except StlabError as error:
        return InferResult(request.model, request.version).failed(error)


def first_address(urls: str) -> str:
    """Return the first of several addresses, as STLAB_TRITON_URL may hold."""
    return next(iter(split_addresses(urls)), "")


def _infer(request: InferRequest) -> InferResult:
    _check(request)
    inputs = read_inputs(request.inputs)
    url = first_address(request.url)
    with (
        connect(url, option="--url", timeout=request.deadline) as client,
        _translated(client, request),
    ):
        model = client.model(request.model, request.version)
        begin = time.perf_counter()
        with _fitting(model.spec):
            outputs = model.infer(
                inputs, outputs=request.outputs or None, deadline=request.deadline
            )
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
        raise UsageError("--deadline is more than 0 seconds", hint="Leave it out for a minute.")
    if request.output is None:
        return
    if request.output.suffix != ".npz":
        raise UsageError(
            f"--output is a .npz, not {request.output.name}", hint="Use --json for JSON on stdout."
        )
    if not request.output.parent.is_dir():
        raise UsageError(f"there is no folder {request.output.parent}", hint="Check --output.")


@contextmanager
def _translated(client: TritonClient, request: InferRequest) -> Iterator[None]:
    """Say what went wrong in the exporter's words; what is not here, `connect` says."""
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
            f"{name} gave no answer within {request.deadline:g} s",
            hint="Give it more with --deadline, or see what the server is busy with.",
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
            hint="Run the same command again once it is loaded; the server's log says why not.",
            kind="not_ready",
        ) from error
    except Unavailable as error:
        raise UnavailableError(
            f"the Triton server at {client.url} went away: {error.message}",
            hint="Run the same command again once it answers.",
        ) from error


@contextmanager
def _fitting(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        takes = ", ".join(map(str, spec.inputs))
        gives = ", ".join(map(str, spec.outputs))
        raise UsageError(
            error.message, hint=f"The model takes {takes or 'nothing'}, and gives {gives}."
        ) from error


def _served(client: TritonClient) -> str:
    try:
        names = client.models()
    except TritonClientError:
        names = ()
    if not names:
        return "Load it first, or ask another server with --url."
    return f"It serves: {', '.join(names)}."
