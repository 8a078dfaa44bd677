"""Check the reference alone: is it a function of its input, and which tolerances does it need?

Everything that the candidate is later compared with is computed here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.errors import ValidationFailedError
from exporter.parity.compare import compare_outputs
from exporter.parity.coverage import measure_coverage, weaknesses
from exporter.parity.evidence import Batching, Check, Evidence
from exporter.parity.input_generator import Case, InputGenerator
from exporter.parity.reference_run import ReferenceRun
from exporter.parity.reference_set import ReferenceSet, cannot_be_batched, cannot_stay_free
from exporter.parity.row_independence import check_row_independence
from exporter.parity.tolerances import OWN_PRECISION, Tolerance, determinism_tolerance, measure
from exporter.parity.unusual_inputs import (
    run_far_rows,
    run_hard_values,
    run_known_values,
    run_thresholds,
)
from exporter.sources.base import Source

__all__ = ["check_reference"]


def check_reference(
    source: Source,
    evidence: Evidence,
    *,
    max_batch_size: int,
    batching: str,
    samples: Sequence[Case] = (),
    precision: str = OWN_PRECISION,
    extremes: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> ReferenceSet:
    """Run the reference on everything that the proof compares, the user's samples included.

    *batching* is ``auto``, ``require`` or ``off``; *precision* is that of the candidate, for its
    budgets; *extremes* is whether hard values and far rows are compared. What is being done goes to
    *say*.

    Raises:
        ValidationFailedError: The reference does not agree with itself, cannot run its own example
            or any generated input, or must be batched and cannot be, or fixes a size that its
            signature leaves free.
    """
    run = ReferenceRun(source, evidence, InputGenerator(source.interface, source.example))
    say("running the registered model")
    run.run_example()
    verdict = run.run_batches(max_batch_size, samples)
    _check_determinism(run)
    run_thresholds(run)
    shown = run_known_values(run)
    if extremes and precision == OWN_PRECISION:  # a lower one has not their range
        usual = _tolerances(run)
        run_hard_values(run, usual, verdict.rows)
        run_far_rows(run, usual, verdict.rows)
    run.run_edge_cases(samples, verdict.rows)
    run.note_rejected()
    tolerances = _tolerances(run)
    if batching == "off":
        verdict = Batching(0, "switched off with --batching off", verdict.rows)
    elif verdict.max_batch_size and source.batching_blocker:
        verdict = Batching(0, source.batching_blocker, verdict.rows)
    elif verdict.max_batch_size and run.batch is not None:
        say("checking that rows do not depend on each other")
        verdict = check_row_independence(run, run.batch, tolerances, verdict)
    if run.batch is not None and not verdict.max_batch_size:
        # It is not split, but a request may have as many rows.
        run.keep_batch()
        tolerances = _tolerances(run)
    evidence.batching = verdict
    covering = [case for case in (*run.cases, run.batch) if case is not None]
    evidence.coverage = dict(measure_coverage(source, covering, shown, evidence.notes))
    evidence.weaknesses = run.weaknesses + list(
        weaknesses(
            source,
            covering,
            evidence.coverage,
            samples=bool(samples),
        )
    )
    if batching == "require" and not verdict.max_batch_size:
        raise cannot_be_batched(verdict.reason)
    if batching == "require" and source.frozen_axes:
        raise cannot_stay_free(source.frozen_axes[0])
    return ReferenceSet(
        tuple(run.cases),
        run.batch if verdict.max_batch_size else None,
        _tolerances(run, precision),
        verdict,
        run.slow,
        tolerances,
        tuple(run.refused),
    )


def _check_determinism(run: ReferenceRun) -> None:
    """Run the same inputs twice, with others in between."""
    first = min(run.cases, key=lambda case: sum(a.size for a in case.inputs.values()))
    between = run.cases[0] if run.cases[0] is not first else run.cases[-1]
    tolerances = {name: t and determinism_tolerance(t) for name, t in _tolerances(run).items()}
    run.source.run(between.inputs)
    # Noise may show in some rows only.
    many = [] if run.batch is None or run.slow else [run.batch]
    for attempt, case in enumerate((first, first, *many), start=2):
        outputs = run.source.run(case.inputs)
        for difference in compare_outputs(run.outputs, case.outputs, outputs, tolerances):
            if not difference.problem:
                continue
            detail = (
                "a second run on the same input differs: "
                f"output '{difference.output}' has {difference.problem}"
            )
            run.evidence.add(Check("determinism", passed=False, detail=detail, cases=attempt))
            raise ValidationFailedError(
                f"the registered model is not deterministic: {detail}",
                hint="Call model.eval() before logging; remove noise, counters and clocks "
                "from forward(). What draws numbers cannot be proven.",
                kind="determinism",
            )
    detail = "three runs on the same input agree"
    run.evidence.add(Check("determinism", passed=True, detail=detail, cases=3))


def _tolerances(run: ReferenceRun, precision: str = OWN_PRECISION) -> dict[str, Tolerance | None]:
    """Return the budgets from all cases so far."""
    cases = [case for case in run.cases if case.case.usual]
    pairs = [(case.outputs, case.float64) for case in cases if case.float64 is not None]
    return {
        output.name: measure(
            output,
            [case.outputs[output.name] for case in cases],
            [(low[output.name], high[output.name]) for low, high in pairs],
            precision,
        )
        for output in run.outputs
    }
