"""Examines the reference alone: is it a function of its input, and may its rows be batched?

Everything that the candidate is later compared with is computed here, once.
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ValidationFailedError
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Batching, Check, Evidence
from exporter.parity.input_generator import Case, InputGenerator, rows_of, take_rows
from exporter.parity.reference_run import CUTS, ReferenceRun
from exporter.parity.reference_set import ReferenceCase, ReferenceSet, cannot_be_batched
from exporter.parity.tolerances import OWN_PRECISION, Tolerance, batch_invariance_tolerance, measure
from exporter.sources.base import InputRejectedError, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from exporter.arrays import Array, Arrays

__all__ = ["check_reference"]

# Every number of rows is asked for, unless that takes longer.
MOST_SECONDS = 2.0
FAR: dict[str, Callable[[Any], Any]] = {
    "large values": lambda row: row * 1e3,
    "large negative values": lambda row: -np.abs(row) * 1e3,
    "NaN": lambda row: np.full_like(row, np.nan),
}
"""What a row may hold that is far from the example, by what it is called."""


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
    """Ask the reference everything that the proof needs to know.

    Args:
        source: The registry model.
        evidence: Where checks are recorded.
        max_batch_size: The largest batch to examine.
        batching: ``auto``, ``require`` or ``off``.
        samples: The user's own cases.
        precision: What the candidate is to be in, for its budgets; the reference's are its own.
        say: Told what is being done.

    Raises:
        ValidationFailedError: The reference does not agree with itself, cannot run its own example
            or any drawn input, or must be batched and cannot be.
    """
    run = ReferenceRun(source, evidence, InputGenerator(source.interface, source.example))
    say("asking the registered model")
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
        # Not cut, but as many rows come in one request.
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
    """Ask the same twice, with something else in between.

    Raises:
        ValidationFailedError: The answers differ.
    """
    first = min(run.cases, key=lambda answer: sum(a.size for a in answer.case.inputs.values()))
    between = run.cases[0] if run.cases[0] is not first else run.cases[-1]
    tolerances = _tolerances(run)
    run.source.run(between.case.inputs)
    # Noise may show in some rows only.
    many = [] if run.batch is None or run.slow else [run.batch]
    for attempt, before in enumerate((first, first, *many), start=2):
        again = run.source.run(before.case.inputs)
        differences = compare_outputs(
            run.source.interface.outputs, before.outputs, again, _hundredth(tolerances)
        )
        problem = next((d for d in differences if d.problem), None)
        if problem is not None:
            detail = (
                f"asked the same again it answers differently: output '{problem.output}' has "
                f"{problem.problem}"
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
    """Return the budgets from everything asked so far."""
    answers = [answer for answer in run.cases if answer.case.usual]
    return {
        output.name: measure(
            output,
            [answer.outputs[output.name] for answer in answers],
            [
                (answer.outputs[output.name], answer.float64[output.name])
                for answer in answers
                if answer.float64 is not None
            ],
            precision,
        )
        for output in run.source.interface.outputs
    }


def _check_independence(
    run: ReferenceRun, tolerances: Mapping[str, Tolerance | None], verdict: Batching
) -> Batching:
    """Check that a row's answer depends on that row alone."""
    batch = run.batch
    if batch is None:  # pragma: no cover - a verdict with a batch size has a batch
        return verdict
    tight = {
        name: tolerance and batch_invariance_tolerance(tolerance)
        for name, tolerance in tolerances.items()
    }
    count, worst, kept = 0, 0.0, len(run.cases)
    ways = itertools.chain(_rearranged(run, batch), _fewer(run, batch), _beside(run, batch))
    for label, expected, ask in ways:
        count += 1
        del run.cases[kept:]
        try:
            answer = ask()
        except InputRejectedError as error:
            return _dependent(run, f"{label} is refused ({error})", count)
        for difference in compare_outputs(run.source.interface.outputs, expected, answer, tight):
            worst = max(worst, difference.margin)
            if difference.problem:
                return _dependent(
                    run,
                    f"{label} changes the answer: output '{difference.output}' has "
                    f"{difference.problem}",
                    count,
                )
    del run.cases[kept:]
    detail = f"{count} ways to cut and shuffle {rows_of(batch.case.inputs)} distinct rows agree"
    run.evidence.add(
        Check("independent rows", passed=True, detail=detail, cases=count, margin=worst)
    )
    return verdict


def _dependent(run: ReferenceRun, detail: str, count: int) -> Batching:
    # Not a failure: such a model is served, one request at a time.
    run.evidence.add(Check("independent rows", passed=True, detail=f"no: {detail}", cases=count))
    return Batching(0, f"its rows depend on each other: {detail}")


def _rearranged(
    run: ReferenceRun, batch: ReferenceCase
) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
    """Yield ways to cut and shuffle the batch: what, the answer expected, how to get it."""
    for cut, rows in run.sub_batches:
        label = f"{rows.stop - rows.start} of the rows"
        yield label, take_rows(batch.outputs, rows), partial(_given, cut.outputs)
    count = rows_of(batch.case.inputs)
    shuffled = np.random.default_rng(run.generator.seed).permutation(count)
    selections = [("rows in another order", shuffled)]
    if not run.slow:
        selections += [
            ("rows backwards", np.arange(count)[::-1]),
            ("the last row alone", np.array([count - 1])),
        ]
    selections.append(("the same row three times", np.zeros(3, dtype=np.int64)))
    for label, selection in selections:
        inputs = take_rows(batch.case.inputs, selection)
        yield label, take_rows(batch.outputs, selection), partial(run.source.run, inputs)


def _fewer(
    run: ReferenceRun, batch: ReferenceCase
) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
    """Yield the numbers of rows that were not asked for yet, as far as they cost little."""
    begin = time.perf_counter()
    for count in range(CUTS[-1][1] + 1, rows_of(batch.case.inputs)):
        if run.slow or time.perf_counter() - begin > MOST_SECONDS:
            return
        rows = slice(0, count)
        case = Case(f"{count} of many rows", take_rows(batch.case.inputs, rows), usual=False)
        yield f"{count} of the rows", take_rows(batch.outputs, rows), partial(_asked, run, case)


def _asked(run: ReferenceRun, case: Case) -> Arrays:
    return run.run_case(case).outputs


def _beside(
    run: ReferenceRun, batch: ReferenceCase
) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
    """Yield the batch with one row far from what the example shows, which no other may notice."""
    if not any(array.dtype.kind == "f" for array in batch.case.inputs.values()):
        return
    rest = slice(1, None)
    expected = take_rows(batch.outputs, rest)
    for label, far in FAR.items():
        inputs = {name: _with_first(array, far) for name, array in batch.case.inputs.items()}
        try:
            answer = take_rows(run.source.run(inputs), rest)
        except InputRejectedError:
            continue  # as it may
        yield f"{label} in one row", expected, partial(_given, answer)


def _with_first(array: Array, far: Callable[[Array], Array]) -> Array:
    if array.dtype.kind != "f":
        return array
    changed = array.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        changed[0] = far(array[0])
    return changed


def _given(outputs: Arrays) -> Arrays:
    return outputs


def _hundredth(tolerances: Mapping[str, Tolerance | None]) -> dict[str, Tolerance | None]:
    return {
        name: t
        and Tolerance(t.typical / 100, t.relative / 100, share=t.share / 100, floor=t.floor / 100)
        for name, t in tolerances.items()
    }
