"""Checks the reference alone: is it a function of its input, and may its rows be batched?

Everything that the candidate is later compared with is computed here, once.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ValidationFailedError
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Batching, Check, Evidence
from exporter.parity.input_generator import Case, InputGenerator, rows_of, take_rows
from exporter.parity.reference_run import SUB_BATCHES, ReferenceRun
from exporter.parity.reference_set import ReferenceCase, ReferenceSet, cannot_be_batched
from exporter.parity.tolerances import (
    OWN_PRECISION,
    Tolerance,
    batch_invariance_tolerance,
    determinism_tolerance,
    measure,
)
from exporter.sources.base import InputRejectedError, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from exporter.arrays import Array, Arrays

    Variant = tuple[str, Arrays, Callable[[], Arrays]]

__all__ = ["check_reference"]

# Batches of every size are run, unless that takes longer.
MOST_SECONDS = 2.0
FAR: dict[str, Callable[[Any], Any]] = {
    "large values": lambda row: row * 1e3,
    "large negative values": lambda row: -np.abs(row) * 1e3,
    "NaN": lambda row: np.full_like(row, np.nan),
}
"""Values far from the example's that one row may hold, by name."""


def check_reference(
    source: Source,
    evidence: Evidence,
    *,
    max_batch_size: int,
    batching: str,
    samples: Sequence[Case] = (),
    precision: str = OWN_PRECISION,
    say: Callable[[str], None] = lambda _: None,
) -> ReferenceSet:
    """Run the reference on everything that the proof compares.

    Args:
        source: The registry model.
        evidence: Where checks are recorded.
        max_batch_size: The largest batch to run.
        batching: ``auto``, ``require`` or ``off``.
        samples: The user's own cases.
        precision: That of the candidate, for its budgets; the reference runs in its own.
        say: Called with what is being done.

    Raises:
        ValidationFailedError: The reference does not agree with itself, cannot run its own example
            or any generated input, or must be batched and cannot be.
    """
    run = ReferenceRun(source, evidence, InputGenerator(source.interface, source.example))
    say("running the registered model")
    run.run_example()
    verdict = run.run_batches(max_batch_size, samples)
    _check_determinism(run)
    run.run_thresholds()
    run.run_edge_cases(samples, verdict.rows)
    tolerances = _tolerances(run)
    if batching == "off":
        verdict = Batching(0, "switched off with --batching off", verdict.rows)
    elif verdict.max_batch_size and source.batching_blocker:
        verdict = Batching(0, source.batching_blocker, verdict.rows)
    elif verdict.max_batch_size:
        say("checking that rows do not depend on each other")
        verdict = _check_independence(run, tolerances, verdict)
    if run.batch is not None and not verdict.max_batch_size:
        # It is not split, but a request may have as many rows.
        run.keep_batch()
        tolerances = _tolerances(run)
    evidence.batching = verdict
    if batching == "require" and not verdict.max_batch_size:
        raise cannot_be_batched(verdict.reason)
    return ReferenceSet(
        tuple(run.cases),
        run.batch if verdict.max_batch_size else None,
        _tolerances(run, precision),
        verdict,
        run.slow,
        tolerances,
    )


def _check_determinism(run: ReferenceRun) -> None:
    """Run the same inputs twice, with others in between.

    Raises:
        ValidationFailedError: The outputs differ.
    """
    first = min(run.cases, key=lambda case: sum(a.size for a in case.inputs.values()))
    between = run.cases[0] if run.cases[0] is not first else run.cases[-1]
    tolerances = {name: t and determinism_tolerance(t) for name, t in _tolerances(run).items()}
    run.source.run(between.inputs)
    # Noise may show in some rows only.
    many = [] if run.batch is None or run.slow else [run.batch]
    for attempt, case in enumerate((first, first, *many), start=2):
        outputs = run.source.run(case.inputs)
        differences = compare_outputs(run.outputs, case.outputs, outputs, tolerances)
        problem = next((d for d in differences if d.problem), None)
        if problem is not None:
            detail = (
                "a second run on the same input differs: "
                f"output '{problem.output}' has {problem.problem}"
            )
            run.evidence.add(Check("determinism", passed=False, detail=detail, cases=attempt))
            raise ValidationFailedError(
                f"the registered model is not deterministic: {detail}",
                hint="Call model.eval() before logging; remove noise, counters and clocks "
                "from forward(). What draws numbers cannot be proven.",
                kind="determinism",
            )
    run.evidence.add(
        Check("determinism", passed=True, detail="three runs on the same input agree", cases=3)
    )


def _tolerances(run: ReferenceRun, precision: str = OWN_PRECISION) -> dict[str, Tolerance | None]:
    """Return the budgets from all cases so far."""
    cases = [case for case in run.cases if case.case.usual]
    return {
        output.name: measure(
            output,
            [case.outputs[output.name] for case in cases],
            [
                (case.outputs[output.name], case.float64[output.name])
                for case in cases
                if case.float64 is not None
            ],
            precision,
        )
        for output in run.outputs
    }


def _check_independence(
    run: ReferenceRun, tolerances: Mapping[str, Tolerance | None], verdict: Batching
) -> Batching:
    """Check that a row's outputs depend on that row alone."""
    batch = run.batch
    if batch is None:  # pragma: no cover - a verdict with a batch size has a batch
        return verdict
    tight = {name: t and batch_invariance_tolerance(t) for name, t in tolerances.items()}
    count, worst, kept = 0, 0.0, len(run.cases)
    for label, expected, outputs_of in _variants(run, batch):
        count += 1
        del run.cases[kept:]
        try:
            outputs = outputs_of()
        except InputRejectedError as error:
            return _dependent(run, f"{label} is refused ({error})", count)
        for difference in compare_outputs(run.outputs, expected, outputs, tight):
            worst = max(worst, difference.margin)
            if difference.problem:
                changed = f"output '{difference.output}' has {difference.problem}"
                return _dependent(run, f"{label} changes the answer: {changed}", count)
    del run.cases[kept:]
    detail = f"{count} ways to cut and shuffle {rows_of(batch.inputs)} distinct rows agree"
    run.evidence.add(
        Check("independent rows", passed=True, detail=detail, cases=count, margin=worst)
    )
    return verdict


def _dependent(run: ReferenceRun, detail: str, count: int) -> Batching:
    # Not a failure: such a model is served, one request at a time.
    run.evidence.add(Check("independent rows", passed=True, detail=f"no: {detail}", cases=count))
    return Batching(0, f"its rows depend on each other: {detail}")


def _variants(run: ReferenceRun, batch: ReferenceCase) -> Iterator[Variant]:
    """Yield variants of a batch: a label, the outputs expected, and what computes them."""
    yield from _rearranged(run, batch)
    yield from _fewer_rows(run, batch)
    yield from _with_one_far_row(run, batch)


def _rearranged(run: ReferenceRun, batch: ReferenceCase) -> Iterator[Variant]:
    for part, span in run.sub_batches:
        label = f"{span.stop - span.start} of the rows"
        yield label, take_rows(batch.outputs, span), partial(dict, part.outputs)
    count = rows_of(batch.inputs)
    shuffled = np.random.default_rng(run.generator.seed).permutation(count)
    selections = [("rows in another order", shuffled)]
    if not run.slow:
        selections += [
            ("rows backwards", np.arange(count)[::-1]),
            ("the last row alone", np.array([count - 1])),
        ]
    selections.append(("the same row three times", np.zeros(3, dtype=np.int64)))
    for label, rows in selections:
        inputs = take_rows(batch.inputs, rows)
        yield label, take_rows(batch.outputs, rows), partial(run.source.run, inputs)


def _fewer_rows(run: ReferenceRun, batch: ReferenceCase) -> Iterator[Variant]:
    """Yield the sizes that have not been run yet, as long as they cost little."""
    begin = time.perf_counter()
    for count in range(SUB_BATCHES[-1][1] + 1, rows_of(batch.inputs)):
        if run.slow or time.perf_counter() - begin > MOST_SECONDS:
            return
        rows = slice(0, count)
        case = Case(f"{count} of many rows", take_rows(batch.inputs, rows), usual=False)
        expected = take_rows(batch.outputs, rows)
        yield f"{count} of the rows", expected, partial(_outputs_of, run, case)


def _outputs_of(run: ReferenceRun, case: Case) -> Arrays:
    return run.run_case(case).outputs


def _with_one_far_row(run: ReferenceRun, batch: ReferenceCase) -> Iterator[Variant]:
    """Yield the batch with one row far from the example, which must change no other row."""
    if not any(array.dtype.kind == "f" for array in batch.inputs.values()):
        return
    rest = slice(1, None)
    expected = take_rows(batch.outputs, rest)
    for label, far in FAR.items():
        inputs = {name: _with_first(array, far) for name, array in batch.inputs.items()}
        try:
            outputs = take_rows(run.source.run(inputs), rest)
        except InputRejectedError:
            continue  # as it may
        yield f"{label} in one row", expected, partial(dict, outputs)


def _with_first(array: Array, far: Callable[[Array], Array]) -> Array:
    if array.dtype.kind != "f":
        return array
    changed = array.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        changed[0] = far(array[0])
    return changed
