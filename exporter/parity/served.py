"""Compares a served model with the reference over gRPC, as its clients will call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Check, Evidence
from exporter.parity.input_generator import Case, rows_of, take_rows
from exporter.parity.reference_set import ReferenceCase
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from exporter.interface import Tensor
    from exporter.parity.reference_set import ReferenceSet
    from triton_client import Model

__all__ = ["Infer", "check_batching", "check_outputs", "make_infer"]

Infer = Callable[[Arrays], Mapping[str, Array]]
"""Sends inputs to a served model and returns its outputs."""

CONNECTIONS = 8
REQUEST_ROWS = (1, 2, 3, 1, 5, 1, 8, 2)


def make_infer(model: Model, outputs: tuple[Tensor, ...]) -> Infer:
    """Return a call of a served model with arrays as the registered model takes and gives them.

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
    """Ask the served model every case, one at a time."""
    answers = [
        *references.cases,
        *([_full_batch(references.batch, references)] if references.batch else []),
    ]
    problem, number = "", 0
    for answer in answers:
        number += 1
        try:
            served = infer(answer.case.inputs)
        except TritonClientError as error:
            problem = f"{answer.case.name}: the server answers with an error: {error.message}"
        else:
            problem = evidence.record(
                answer.case.name,
                compare_outputs(
                    outputs, answer.outputs, served, references.tolerances, answer.float64
                ),
            )
        if problem:
            break
    detail = problem or f"{number} cases within budget"
    return evidence.add(
        Check("numbers", passed=not problem, detail=detail, cases=number, margin=evidence.margin)
    )


def check_batching(
    infer: Infer,
    references: ReferenceSet,
    outputs: tuple[Tensor, ...],
    evidence: Evidence,
    executed: Callable[[], tuple[int, int]],
) -> Check | None:
    """Ask with many requests of mixed sizes at once, so that the batcher must cut and glue.

    Args:
        infer: The served model.
        references: What it must answer.
        outputs: Its outputs.
        evidence: Where the comparison is recorded.
        executed: Returns how many rows and how many executions the server has counted so far.
    """
    batch = references.batch
    if batch is None:
        return None
    rounds = 1 if references.slow else 4
    pieces = list(_pieces(rows_of(batch.case.inputs), rounds))
    before = executed()

    def ask(piece: Array) -> Mapping[str, Array] | TritonClientError:
        try:
            return infer(take_rows(batch.case.inputs, piece))
        except TritonClientError as error:
            return error

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        answers = list(threads.map(ask, pieces))
    problem = ""
    for piece, served in zip(pieces, answers, strict=True):
        label = f"{len(piece)} of many concurrent rows"
        if isinstance(served, TritonClientError):
            problem = problem or f"{label}: the server answers with an error: {served.message}"
            continue
        expected = take_rows(batch.outputs, piece)
        exact = take_rows(batch.float64, piece) if batch.float64 is not None else None
        found = evidence.record(
            label,
            compare_outputs(outputs, expected, served, references.tolerances, exact),
            times=rounds,
        )
        problem = problem or found
    rows, executions = (now - then for now, then in zip(executed(), before, strict=True))
    glued = f"{len(pieces)} concurrent requests, {rows / max(executions, 1):.1f} rows per execution"
    return evidence.add(
        Check("dynamic batching", passed=not problem, detail=problem or glued, cases=len(pieces))
    )


def _full_batch(batch: ReferenceCase, references: ReferenceSet) -> ReferenceCase:
    """The largest batch that the server takes; where the batch has fewer rows, they come again."""
    rows = np.arange(references.batching.max_batch_size) % rows_of(batch.case.inputs)
    case = Case(f"{len(rows)} rows", take_rows(batch.case.inputs, rows))
    return ReferenceCase(case, take_rows(batch.outputs, rows))


def _pieces(rows: int, rounds: int) -> Iterator[np.ndarray[Any, Any]]:
    for turn in range(rounds):
        order = np.random.default_rng(turn).permutation(rows)
        start = 0
        for size in REQUEST_ROWS * rows:
            if start >= rows:
                break
            yield order[start : start + size]
            start += size
