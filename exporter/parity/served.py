"""Compares a served model with the reference over gRPC, as clients call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.bundle import SAMPLES, Bundle
from exporter.interface import Tensor
from exporter.parity.evidence import Batching, Check, Evidence
from exporter.parity.input_generator import rows_of
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.samples import load_samples
from triton_client import Model
from triton_client.errors import TritonClientError

__all__ = ["Infer", "check_batching", "check_outputs", "make_infer", "replay_samples"]

Infer = Callable[[Arrays], Mapping[str, Array]]
"""Sends inputs to a served model and returns its outputs."""

CONNECTIONS = 8
REQUEST_ROWS = (1, 2, 3, 1, 5, 1, 8, 2)


def make_infer(model: Model, outputs: tuple[Tensor, ...]) -> Infer:
    """Return a function that runs a served model with the registered model's shapes.

    Scalars have an axis of one element on the wire, since a config's dims may not be empty.
    """
    served = {spec.name: len(spec.shape) for spec in model.spec.inputs}
    ranks = {tensor.name: len(tensor.axes) for tensor in outputs}

    def infer(inputs: Arrays) -> Mapping[str, Array]:
        sent = {
            name: array[..., None] if served.get(name) == array.ndim + 1 else array
            for name, array in inputs.items()
        }
        return {
            name: array[..., 0] if array.ndim == ranks.get(name, -1) + 1 else array
            for name, array in model.infer(sent).items()
        }

    return infer


def check_outputs(
    infer: Infer, references: ReferenceSet, outputs: tuple[Tensor, ...], evidence: Evidence
) -> Check:
    """Run every case on the served model, one at a time."""
    cases = list(references.cases)
    if references.batch:
        rows = np.arange(references.batching.max_batch_size) % rows_of(references.batch.inputs)
        cases.append(references.batch.take(rows, f"{len(rows)} rows"))
    problem, count = "", 0
    for case in cases:
        count += 1
        try:
            found = infer(case.inputs)
        except TritonClientError as error:
            problem = f"{case.name}: the server answers with an error: {error.message}"
        else:
            problem = evidence.record(case.name, references.compare(case, found, outputs))
        if problem:
            break
    detail = problem or f"{count} cases within budget"
    return evidence.add(
        Check("numbers", passed=not problem, detail=detail, cases=count, margin=evidence.margin)
    )


def replay_samples(model: Model, bundle: Bundle, evidence: Evidence) -> None:
    """Run every sample of a bundle on a served model, with nothing but the bundle at hand.

    Raises:
        ValidationFailedError: The samples cannot be read.
    """
    outputs = bundle.outputs
    evidence.expect(outputs)
    references = load_samples(bundle.path / SAMPLES, Batching(bundle.max_batch_size))
    check_outputs(make_infer(model, outputs), references, outputs, evidence)


def check_batching(
    infer: Infer,
    references: ReferenceSet,
    outputs: tuple[Tensor, ...],
    evidence: Evidence,
    executed: Callable[[], tuple[int, int]],
) -> Check | None:
    """Send many requests of mixed sizes at once, so that the batcher must merge and split them.

    *executed* returns the server's counts of rows and of executions so far.
    """
    batch = references.batch
    if batch is None:
        return None
    rounds = 1 if references.slow else 4
    pieces = [
        batch.take(rows, f"{len(rows)} of many concurrent rows")
        for rows in _pieces(rows_of(batch.inputs), rounds)
    ]
    before = executed()

    def send(piece: ReferenceCase) -> Mapping[str, Array] | TritonClientError:
        try:
            return infer(piece.inputs)
        except TritonClientError as error:
            return error

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        answers = list(threads.map(send, pieces))
    problem = ""
    for piece, found in zip(pieces, answers, strict=True):
        if isinstance(found, TritonClientError):
            wrong = f"{piece.name}: the server answers with an error: {found.message}"
        else:
            differences = references.compare(piece, found, outputs)
            wrong = evidence.record(piece.name, differences, times=rounds)
        problem = problem or wrong
    rows, executions = (now - then for now, then in zip(executed(), before, strict=True))
    glued = f"{len(pieces)} concurrent requests, {rows / max(executions, 1):.1f} rows per execution"
    return evidence.add(
        Check("dynamic batching", passed=not problem, detail=problem or glued, cases=len(pieces))
    )


def _pieces(rows: int, rounds: int) -> Iterator[Array]:
    for turn in range(rounds):
        order = np.random.default_rng(turn).permutation(rows)
        start = 0
        for size in REQUEST_ROWS * rows:
            if start >= rows:
                break
            yield order[start : start + size]
            start += size
