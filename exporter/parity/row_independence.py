"""Decide whether a model's rows depend on each other, and so whether requests may be batched.

Rows that do not can be put together with others' on the server: the rows of one batch are cut,
shuffled and repeated, and each must keep its answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain

import numpy as np

from exporter.arrays import Arrays
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Batching, Check
from exporter.parity.far_rows import FAR, with_far_row
from exporter.parity.input_generator import Case, rows_of, take_rows
from exporter.parity.reference_run import SUB_BATCHES, ReferenceRun
from exporter.parity.reference_set import ReferenceCase
from exporter.parity.tolerances import Tolerance, batch_invariance_tolerance
from exporter.sources.base import InputRejectedError

__all__ = ["check_row_independence"]

Variant = tuple[str, Arrays, Callable[[], Arrays]]
"""A label, the outputs expected, and what computes them."""
# Batches of every size are run, unless that takes longer.
MOST_SECONDS = 2.0


def check_row_independence(
    run: ReferenceRun,
    batch: ReferenceCase,
    tolerances: Mapping[str, Tolerance | None],
    verdict: Batching,
) -> Batching:
    """Return the verdict, or one without batching if a row of a batch depends on the others."""
    tight = {name: t and batch_invariance_tolerance(t) for name, t in tolerances.items()}
    count, worst, kept = 0, 0.0, len(run.cases)
    variants = (_rearranged(run, batch), _fewer_rows(run, batch), _with_one_far_row(run, batch))
    for label, expected, outputs_of in chain(*variants):
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
        inputs = with_far_row(batch.inputs, far)
        try:
            outputs = take_rows(run.source.run(inputs), rest)
        except InputRejectedError:
            continue  # as it may
        yield f"{label} in one row", expected, partial(dict, outputs)
