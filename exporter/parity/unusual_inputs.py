"""Runs the reference on inputs that its example does not show.

They are on thresholds, at values that the model knows or that its operators are hard to compute at,
and far from the example.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.arrays import Arrays
from exporter.parity.conditioning import unsteady_rows
from exporter.parity.decision_thresholds import threshold_inputs
from exporter.parity.far_rows import FAR, comparable_far_rows, with_far_row
from exporter.parity.hard_rows import filled, hard_rows
from exporter.parity.hard_values import drops_nan, sorts
from exporter.parity.input_generator import Case, rows_of, take_rows
from exporter.parity.known_values import KnownRows
from exporter.parity.reference_run import EDGE_ROWS, SLOW_ROWS, ReferenceRun, is_tie
from exporter.parity.tolerances import Tolerance
from exporter.sources.base import InputRejectedError
from exporter.sources.known_values import Counts

__all__ = ["run_far_rows", "run_hard_values", "run_known_values", "run_thresholds"]

THRESHOLDS = 32
HARD_ROWS = 128
MOST_REFUSED = 32


def run_thresholds(run: ReferenceRun) -> None:
    """Run inputs on the thresholds of a reference that has some, in batches of served size."""
    if not run.source.has_thresholds or run.batch is None:
        return
    rows = run.batch.inputs
    try:
        found = threshold_inputs(run.source, rows, SLOW_ROWS if run.slow else THRESHOLDS)
        if found is None:
            return
        most = rows_of(rows)
        for number, start in enumerate(range(0, rows_of(found), most), start=1):
            part = take_rows(found, slice(start, start + most))
            run.run_case(Case(f"thresholds {number}", part, usual=False))
    except InputRejectedError as error:
        run.rejected.append(f"values on thresholds ({error})")


def run_known_values(run: ReferenceRun) -> Counts:
    """Run the values that the model knows; return how much of each kind it took."""
    known = run.source.knowledge.values
    if run.batch is None or not known:
        return {}
    rows = KnownRows(run.batch.inputs, known, rows_of(run.batch.inputs))
    if run.slow:
        rows.limit = SLOW_ROWS
    rows.run(lambda name, inputs: _run_unusual(run, Case(name, inputs, usual=False)))
    run.rejected += [
        f"{kind} in {', '.join(repr(name) for name in names[:8])}"
        for kind, names in rows.rejected.items()
        if names
    ]
    run.refused += [Case(name, inputs) for name, inputs in rows.refused.items()][:MOST_REFUSED]
    return rows.shown


def _run_unusual(run: ReferenceRun, case: Case) -> None:
    run.run_case(case)
    if is_tie(run.source, run.cases[-1]):
        del run.cases[-1]


def run_hard_values(
    run: ReferenceRun, tolerances: Mapping[str, Tolerance | None], rows: int | None
) -> None:
    """Run rows of values at which the model's operators are hard to compute.

    *rows* is the only number of rows that the reference takes, or None. Rows that it refuses,
    and those whose answers rounding decides, are left out.
    """
    typical = _typical_rows(run, rows)
    if typical is None:
        return
    most = rows_of(typical)
    limit = SLOW_ROWS if run.slow else HARD_ROWS
    left_out = 0
    for kind, made in hard_rows(run.source.operators, typical, run.generator.example, limit):
        for number, start in enumerate(range(0, rows_of(made), most), start=1):
            part = take_rows(made, slice(start, start + most))
            # Where the number of rows is fixed, typical ones stand in for those left out.
            fill = typical if run.batch is None else None
            left_out += _run_steady(run, f"hard {kind} {number}", part, fill, tolerances)
    if left_out:
        run.evidence.notes.append(
            f"On {left_out} rows of values that are hard to compute, rounding alone decides "
            "the registered model's answer; they are not compared."
        )


def run_far_rows(
    run: ReferenceRun, tolerances: Mapping[str, Tolerance | None], rows: int | None
) -> None:
    """Run batches of few rows of which the first is far from the example; see `FAR`."""
    typical = _typical_rows(run, rows)
    if typical is None or not any(array.dtype.kind == "f" for array in typical.values()):
        return
    few = typical if run.batch is None else take_rows(typical, slice(0, EDGE_ROWS))
    if drops_nan(run.source.operators):
        # Where NaN means a missing number, sorting it is no rare use.
        place = run.weaknesses if sorts(run.source.operators) else run.evidence.notes
        place.append(
            "NaN in inputs is not compared: ONNX Runtime loses it in sorting, max pooling and "
            "recurrent layers, where torch keeps it. Replace it before inputs are sent."
        )
    for label in comparable_far_rows(run.source):
        inputs = with_far_row(few, FAR[label])
        fill = typical if run.batch is None else None
        _run_steady(run, f"a row of {label}", inputs, fill, tolerances)


def _typical_rows(run: ReferenceRun, rows: int | None) -> Arrays | None:
    """Return some rows, or None where the inputs have none in common."""
    if run.batch is not None:
        return run.batch.inputs
    drawn = run.generator.random("typical", rows=rows)
    counts = {array.shape[:1] for array in drawn.values()}
    return drawn if len(counts) == 1 and counts != {()} else None


def _run_steady(
    run: ReferenceRun,
    name: str,
    inputs: Arrays,
    fill: Arrays | None,
    tolerances: Mapping[str, Tolerance | None],
) -> int:
    """Run a case without the rows that rounding decides; return how many those are."""
    before, left_out = len(run.cases), 0
    for _ in range(2):
        case = Case(name, inputs if fill is None else filled(inputs, fill), usual=False)
        try:
            result = run.run_case(case, in_float64=True)
        except InputRejectedError as error:
            run.rejected.append(f"{name} ({error})")
            return left_out
        unsteady = unsteady_rows(run.source, result, tolerances)[: rows_of(inputs)]
        if not unsteady.any():
            return left_out
        del run.cases[before:]
        left_out += int(unsteady.sum())
        inputs = take_rows(inputs, ~unsteady)
        if rows_of(inputs) == 0:
            break
    return left_out
