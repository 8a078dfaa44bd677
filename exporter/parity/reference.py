"""Examines the reference alone: is it a function of its input, and may its rows be batched?

Everything that the candidate is later compared with is computed here, once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from exporter.errors import ValidationFailed
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Batching, Check, Evidence
from exporter.parity.inputs import (
    Case,
    Drawing,
    equal_rows,
    mixed_in,
    rows_of,
    take_rows,
)
from exporter.parity.tolerances import Tolerance, measure, tighter
from exporter.parity.values import VARIETIES
from exporter.sources.base import Arrays, CannotRun, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Answer", "Truth", "cannot_be_batched", "examine"]

# A reference that would need longer than this for one full batch is asked for a part of it: what
# is only ever looked at (the large batch, its permutations) shrinks, what goes into the bundle not.
PATIENCE_SECONDS = 0.5
PATIENT_ROWS = 8
EDGE_ROWS = 2
# Row counts as (first row, number) of the large batch; float64 is asked for the last of them.
CUTS = ((0, 1), (1, 2), (3, 3))


@dataclass(frozen=True, slots=True)
class Answer:
    """A case with what the reference answers to it."""

    case: Case
    outputs: Arrays
    float64: Arrays | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What a candidate has to answer.

    Attributes:
        answers: The cases with the reference's answers.
        pool: A large batch of distinct rows, to be cut up at will; None where rows may not be.
        tolerances: The budget of every output; None where elements must be equal.
        batching: Whether rows may be batched.
        slow: Whether the reference is expensive to ask.
    """

    answers: tuple[Answer, ...]
    pool: Answer | None
    tolerances: Mapping[str, Tolerance | None]
    batching: Batching
    slow: bool


def examine(
    source: Source,
    evidence: Evidence,
    *,
    max_batch_size: int,
    batching: str,
    samples: Sequence[Case] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Truth:
    """Ask the reference everything that the proof needs to know.

    Args:
        source: The registry model.
        evidence: Where checks are recorded.
        max_batch_size: The largest batch to examine.
        batching: ``auto``, ``require`` or ``off``.
        samples: The user's own cases.
        say: Told what is being done.

    Raises:
        ValidationFailed: The reference does not agree with itself, cannot run its own example or
            any drawn input, or must be batched and cannot be.
    """
    examination = _Examination(source, evidence, Drawing(source.interface, source.example))
    say("asking the registered model")
    examination.ask_example()
    verdict = examination.ask_rows(max_batch_size, samples)
    examination.determinism()
    examination.ask_others(samples, verdict.rows)
    tolerances = examination.tolerances()
    if batching == "off":
        verdict = Batching(0, "switched off with --batching off", verdict.rows)
    elif verdict.max_batch_size:
        say("checking that rows do not depend on each other")
        verdict = examination.independence(tolerances, verdict)
    evidence.batching = verdict
    if batching == "require" and not verdict.max_batch_size:
        raise cannot_be_batched(verdict.reason)
    return Truth(
        tuple(examination.answers),
        examination.pool if verdict.max_batch_size else None,
        tolerances,
        verdict,
        examination.slow,
    )


def cannot_be_batched(reason: str) -> ValidationFailed:
    """Return the error for a model that must be batched and cannot be."""
    return ValidationFailed(
        f"the model cannot be batched: {reason}",
        hint="Export it with --batching auto to serve it unbatched, or change the model.",
        kind="batching",
    )


class _Examination:
    def __init__(self, source: Source, evidence: Evidence, drawing: Drawing) -> None:
        self.source = source
        self.evidence = evidence
        self.drawing = drawing
        self.answers: list[Answer] = []
        self.pool: Answer | None = None
        self.cuts: list[tuple[Answer, slice]] = []
        self.slow = False
        self.skipped: list[str] = []

    def ask(self, case: Case, *, exactly: bool = False) -> Answer:
        outputs = self.source.run(case.inputs)
        exact = self.source.run_float64(case.inputs) if exactly else None
        answer = Answer(case, outputs, exact)
        if case.kept:
            self.answers.append(answer)
        return answer

    def ask_example(self) -> None:
        example = self.source.example
        if example is None:
            self.evidence.notes.append(
                "The version has no input example; inputs are drawn blindly."
            )
            return
        try:
            self.ask(Case("example", example))
        except CannotRun as error:
            raise ValidationFailed(
                f"the registered model cannot run its own example: {error}",
                hint="Log the model again with an example that it can answer.",
                kind="signature",
            ) from error

    def ask_rows(self, max_batch_size: int, samples: Sequence[Case]) -> Batching:
        """Ask for batches of every size, and say whether the leading axis can be one of rows."""
        interface, drawing = self.source.interface, self.drawing
        rows = drawing.example_rows
        inputs_vary = all(t.axes and isinstance(t.axes[0], str) for t in interface.inputs)
        if not inputs_vary or rows is None:
            self._ask_random(None)
            reason = interface.fixed_leading_axis or "its inputs have different numbers of rows"
            return Batching(0, reason)
        try:
            equal = self._ask_batches(max(max_batch_size, 3), samples)
        except CannotRun as error:
            self._ask_random(rows)
            return Batching(0, f"it takes {rows} rows and no other number ({error})", rows)
        if reason := interface.fixed_leading_axis or self._lost_rows():
            return Batching(0, reason)
        if equal:
            return Batching(
                0,
                f"no two rows of '{equal[0]}' that differ could be made from the example; "
                "give some with --samples FILE.npz",
            )
        return Batching(max_batch_size)

    def _ask_batches(self, most: int, samples: Sequence[Case]) -> list[str]:
        """Ask for batches, if possible of rows that differ; return the inputs where none do."""
        real = [case.inputs for case in samples]
        real += [self.source.example] if self.source.example is not None else []

        def draw(variety: int) -> Arrays:
            return mixed_in(self.drawing.random("rows", rows=most, variety=variety), real)

        for variety in range(VARIETIES):
            rows = draw(variety)
            if equal_rows(rows):
                continue
            answered = len(self.answers)
            try:
                self._ask_cuts(rows, most)
            except CannotRun:
                if variety == 0:
                    raise
                # Values that nobody logged need not make sense to the model.
                del self.answers[answered:]
                self.cuts.clear()
            else:
                return []
        rows = draw(0)
        self._ask_cuts(rows, most)
        return equal_rows(rows)

    def _ask_cuts(self, rows: Arrays, most: int) -> None:
        for start, count in CUTS:
            cut = slice(start, start + count) if start + count <= most else slice(0, count)
            label = "1 random row" if count == 1 else f"{count} random rows"
            begin = time.perf_counter()
            answer = self.ask(Case(label, take_rows(rows, cut)), exactly=(start, count) == CUTS[-1])
            if count == 1:
                self.slow = (time.perf_counter() - begin) * most > PATIENCE_SECONDS
            self.cuts.append((answer, cut))
        largest = min(most, PATIENT_ROWS) if self.slow else most
        pool = take_rows(rows, slice(0, largest))
        self.pool = self.ask(Case(f"{largest} random rows", pool, kept=False))

    def _ask_random(self, rows: int | None) -> None:
        for number in range(1, 4):
            case = Case(f"random {number}", self.drawing.random(f"random {number}", rows=rows))
            try:
                self.ask(case, exactly=number == 1)
            except CannotRun as error:
                raise ValidationFailed(
                    f"the registered model refuses inputs drawn from its example's range: {error}",
                    hint="Log an input example with typical values, or give --samples FILE.npz.",
                    kind="samples",
                ) from error

    def _lost_rows(self) -> str:
        pool = self.pool
        if pool is None:
            return "no batch was asked for"
        expected = rows_of(pool.case.inputs)
        for name, output in pool.outputs.items():
            if output.ndim == 0 or output.shape[0] != expected:
                return f"{expected} rows in gave output '{name}' of shape {list(output.shape)}"
        return ""

    def ask_others(self, samples: Sequence[Case], rows: int | None) -> None:
        """Ask for edge values, other sizes of other axes, and the user's own samples."""
        for case in samples:
            try:
                self.ask(case)
            except CannotRun as error:
                raise ValidationFailed(
                    f"the registered model cannot run {case.name}: {error}",
                    hint="Correct the samples file.",
                    kind="samples",
                ) from error
        edge_rows = rows if self.pool is None else EDGE_ROWS
        for case in (*self.drawing.edges(rows=edge_rows), *self._sized(edge_rows)):
            try:
                self.ask(case)
            except CannotRun as error:
                self.skipped.append(f"{case.name} ({error})")
        if self.skipped:
            self.evidence.notes.append(
                "The registered model itself refuses: " + "; ".join(self.skipped)
            )

    def _sized(self, rows: int | None) -> Iterator[Case]:
        for name, sizes in self.drawing.other_sizes():
            yield Case(f"{name} axes", self.drawing.random(name, rows=rows, **sizes))

    def determinism(self) -> None:
        """Ask the same twice, with something else in between.

        Raises:
            ValidationFailed: The answers differ.
        """
        first = min(
            self.answers, key=lambda answer: sum(a.size for a in answer.case.inputs.values())
        )
        between = self.answers[0] if self.answers[0] is not first else self.answers[-1]
        tolerances = self.tolerances()
        self.source.run(between.case.inputs)
        # Noise may show in some rows only.
        many = [] if self.pool is None or self.slow else [self.pool]
        for attempt, asked in enumerate((first, first, *many), start=2):
            again = self.source.run(asked.case.inputs)
            differences = compare_outputs(
                self.source.interface.outputs, asked.outputs, again, _hundredth(tolerances)
            )
            problem = next((d for d in differences if d.problem), None)
            if problem is not None:
                detail = (
                    f"asked the same again it answers differently: output '{problem.output}' has "
                    f"{problem.problem}"
                )
                self.evidence.add(Check("determinism", passed=False, detail=detail, cases=attempt))
                raise ValidationFailed(
                    f"the registered model is not deterministic: {detail}",
                    hint="Call model.eval() before logging; remove noise, counters and clocks "
                    "from forward(). What draws numbers cannot be proven.",
                    kind="determinism",
                )
        self.evidence.add(
            Check("determinism", passed=True, detail="three runs on the same input agree", cases=3)
        )

    def tolerances(self) -> dict[str, Tolerance | None]:
        """Return the budgets from everything asked so far."""
        answers = [answer for answer in self.answers if answer.case.usual]
        return {
            output.name: measure(
                output,
                [answer.outputs[output.name] for answer in answers],
                [
                    (answer.outputs[output.name], answer.float64[output.name])
                    for answer in answers
                    if answer.float64 is not None
                ],
            )
            for output in self.source.interface.outputs
        }

    def independence(
        self, tolerances: Mapping[str, Tolerance | None], verdict: Batching
    ) -> Batching:
        """Check that a row's answer depends on that row alone."""
        pool = self.pool
        if pool is None:  # pragma: no cover - a verdict with a batch size has a pool
            return verdict
        tight = {name: tolerance and tighter(tolerance) for name, tolerance in tolerances.items()}
        count, worst = 0, 0.0
        for label, expected, ask in self._rearranged(pool):
            count += 1
            try:
                answer = ask()
            except CannotRun as error:
                return self._dependent(f"{label} is refused ({error})", count)
            for difference in compare_outputs(
                self.source.interface.outputs, expected, answer, tight
            ):
                worst = max(worst, difference.margin)
                if difference.problem:
                    return self._dependent(
                        f"{label} changes the answer: output '{difference.output}' has "
                        f"{difference.problem}",
                        count,
                    )
        detail = f"{count} ways to cut and shuffle {rows_of(pool.case.inputs)} distinct rows agree"
        self.evidence.add(
            Check("independent rows", passed=True, detail=detail, cases=count, margin=worst)
        )
        return verdict

    def _dependent(self, detail: str, count: int) -> Batching:
        # Not a failure: such a model is served, one request at a time.
        self.evidence.add(
            Check("independent rows", passed=True, detail=f"no: {detail}", cases=count)
        )
        return Batching(0, f"its rows depend on each other: {detail}")

    def _rearranged(self, pool: Answer) -> Iterator[tuple[str, Arrays, Callable[[], Arrays]]]:
        """Yield ways to cut and shuffle the pool: what, the answer expected, how to get it."""
        for cut, rows in self.cuts:
            label = f"{rows.stop - rows.start} of the rows"
            yield label, take_rows(pool.outputs, rows), partial(_given, cut.outputs)
        count = rows_of(pool.case.inputs)
        shuffled = np.random.default_rng(self.drawing.seed).permutation(count)
        selections = [("rows in another order", shuffled)]
        if not self.slow:
            selections += [
                ("rows backwards", np.arange(count)[::-1]),
                ("the last row alone", np.array([count - 1])),
            ]
        selections.append(("the same row three times", np.zeros(3, dtype=np.int64)))
        for label, selection in selections:
            inputs = take_rows(pool.case.inputs, selection)
            yield label, take_rows(pool.outputs, selection), partial(self.source.run, inputs)


def _given(outputs: Arrays) -> Arrays:
    return outputs


def _hundredth(tolerances: Mapping[str, Tolerance | None]) -> dict[str, Tolerance | None]:
    return {
        name: t
        and Tolerance(t.typical / 100, t.relative / 100, share=t.share / 100, floor=t.floor / 100)
        for name, t in tolerances.items()
    }
