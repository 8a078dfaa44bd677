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
from exporter.parity.input_generator import Case, Drawing, rows_of, take_rows
from exporter.parity.reference_run import CUTS, Questions
from exporter.parity.reference_set import Answer, Truth, cannot_be_batched
from exporter.parity.tolerances import OWN_PRECISION, Tolerance, measure, tighter
from exporter.sources.base import CannotRun, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from exporter.arrays import Array, Arrays

__all__ = ["examine"]

# Every number of rows is asked for, unless that takes longer.
MOST_SECONDS = 2.0
FAR: dict[str, Callable[[Any], Any]] = {
    "large values": lambda row: row * 1e3,
    "large negative values": lambda row: -np.abs(row) * 1e3,
    "NaN": lambda row: np.full_like(row, np.nan),
}
"""What a row may hold that is far from the example, by what it is called."""


def examine(
    source: Source,
    evidence: Evidence,
    *,
    max_batch_size: int,
    batching: str,
    samples: Sequence[Case] = (),
    precision: str = OWN_PRECISION,
    say: Callable[[str], None] = lambda _: None,
) -> Truth:
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
    asked = Questions(source, evidence, Drawing(source.interface, source.example))
    say("asking the registered model")
    asked.ask_example()
    verdict = asked.ask_rows(max_batch_size, samples)
    _check_determinism(asked)
    asked.ask_thresholds()
    asked.ask_others(samples, verdict.rows)
    tolerances = _tolerances(asked)
    if batching == "off":
        verdict = Batching(0, "switched off with --batching off", verdict.rows)
    elif verdict.max_batch_size and source.mixes_rows:
        verdict = Batching(0, source.mixes_rows, verdict.rows)
    elif verdict.max_batch_size:
        say("checking that rows do not depend on each other")
        verdict = _check_independence(asked, tolerances, verdict)
    if asked.pool is not None and not verdict.max_batch_size:
        # Not cut, but as many rows come in one request.
        asked.keep_pool()
        tolerances = _tolerances(asked)
    evidence.batching = verdict
    if batching == "require" and not verdict.max_batch_size:
        raise cannot_be_batched(verdict.reason)
    return Truth(
        tuple(asked.answers),
        asked.pool if verdict.max_batch_size else None,
        _tolerances(asked, precision),
        verdict,
        asked.slow,
        tolerances,
    )


def _check_determinism(asked: Questions) -> None:
    """Ask the same twice, with something else in between.

    Raises:
        ValidationFailedError: The answers differ.
    """
    first = min(asked.answers, key=lambda answer: sum(a.size for a in answer.case.inputs.values()))
    between = asked.answers[0] if asked.answers[0] is not first else asked.answers[-1]
    tolerances = _tolerances(asked)
    asked.source.run(between.case.inputs)
    # Noise may show in some rows only.
    many = [] if asked.pool is None or asked.slow else [asked.pool]
    for attempt, before in enumerate((first, first, *many), start=2):
        again = asked.source.run(before.case.inputs)
        differences = compare_outputs(
            asked.source.interface.outputs, before.outputs, again, _hundredth(tolerances)
        )
        problem = next((d for d in differences if d.problem), None)
        if problem is not None:
            detail = (
                f"asked the same again it answers differently: output '{problem.output}' has "
                f"{problem.problem}"
            )
            asked.evidence.add(Check("determinism", passed=False, detail=detail, cases=attempt))
            raise ValidationFailedError(
                f"the registered model is not deterministic: {detail}",
                hint="Call model.eval() before logging; remove noise, counters and clocks "
                "from forward(). What draws numbers cannot be proven.",
                kind="determinism",
            )
    asked.evidence.add(
        Check("determinism", passed=True, detail="three runs on the same input agree", cases=3)
    )


def _tolerances(asked: Questions, precision: str = OWN_PRECISION) -> dict[str, Tolerance | None]:
    """Return the budgets from everything asked so far."""
    answers = [answer for answer in asked.answers if answer.case.usual]
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
        for output in asked.source.interface.outputs
    }


def _check_independence(
    asked: Questions, tolerances: Mapping[str, Tolerance | None], verdict: Batching
) -> Batching:
    """Check that a row's answer depends on that row alone."""
    pool = asked.pool
    if pool is None:  # pragma: no cover - a verdict with a batch size has a pool
        return verdict
    tight = {name: tolerance and tighter(tolerance) for name, tolerance in tolerances.items()}
    count, worst, kept = 0, 0.0, len(asked.answers)
    ways = itertools.chain(_rearranged(asked, pool), _fewer(asked, pool), _beside(asked, pool))
    for label, expected, ask in ways:
        count += 1
        del asked.answers[kept:]
        try:
            answer = ask()
        except CannotRun as error:
            return _dependent(asked, f"{label} is refused ({error})", count)
        for difference in compare_outputs(asked.source.interface.outputs, expected, answer, tight):
            worst = max(worst, difference.margin)
            if difference.problem:
                return _dependent(
                    asked,
                    f"{label} changes the answer: output '{difference.output}' has "
                    f"{difference.problem}",
                    count,
                )
    del asked.answers[kept:]
    detail = f"{count} ways to cut and shuffle {rows_of(pool.case.inputs)} distinct rows agree"
    asked.evidence.add(
        Check("independent rows", passed=True, detail=detail, cases=count, margin=worst)
    )
    return verdict


def _dependent(asked: Questions, detail: str, count: int) -> Batching:
    # Not a failure: such a model is served, one request at a time.
    asked.evidence.add(Check("independent rows", passed=True, detail=f"no: {detail}", cases=count))
    return Batching(0, f"its rows depend on each other: {detail}")


def _rearranged(
    asked: Questions, pool: Answer
) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
    """Yield ways to cut and shuffle the pool: what, the answer expected, how to get it."""
    for cut, rows in asked.cuts:
        label = f"{rows.stop - rows.start} of the rows"
        yield label, take_rows(pool.outputs, rows), partial(_given, cut.outputs)
    count = rows_of(pool.case.inputs)
    shuffled = np.random.default_rng(asked.drawing.seed).permutation(count)
    selections = [("rows in another order", shuffled)]
    if not asked.slow:
        selections += [
            ("rows backwards", np.arange(count)[::-1]),
            ("the last row alone", np.array([count - 1])),
        ]
    selections.append(("the same row three times", np.zeros(3, dtype=np.int64)))
    for label, selection in selections:
        inputs = take_rows(pool.case.inputs, selection)
        yield label, take_rows(pool.outputs, selection), partial(asked.source.run, inputs)


def _fewer(asked: Questions, pool: Answer) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
    """Yield the numbers of rows that were not asked for yet, as far as they cost little."""
    begin = time.perf_counter()
    for count in range(CUTS[-1][1] + 1, rows_of(pool.case.inputs)):
        if asked.slow or time.perf_counter() - begin > MOST_SECONDS:
            return
        rows = slice(0, count)
        case = Case(f"{count} of many rows", take_rows(pool.case.inputs, rows), usual=False)
        yield f"{count} of the rows", take_rows(pool.outputs, rows), partial(_asked, asked, case)


def _asked(asked: Questions, case: Case) -> Arrays:
    return asked.ask(case).outputs


def _beside(asked: Questions, pool: Answer) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
    """Yield the pool with one row far from what the example shows, which no other may notice."""
    if not any(array.dtype.kind == "f" for array in pool.case.inputs.values()):
        return
    rest = slice(1, None)
    expected = take_rows(pool.outputs, rest)
    for label, far in FAR.items():
        inputs = {name: _with_first(array, far) for name, array in pool.case.inputs.items()}
        try:
            answer = take_rows(asked.source.run(inputs), rest)
        except CannotRun:
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
