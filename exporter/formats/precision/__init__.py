"""Rewrites an ONNX model in float32 for a lower precision: ``fp16`` or ``int8``.

What is lost is measured on everything that the reference was asked, against the budgets of the
precision (`exporter.parity.tolerances`). The nodes that lose too much keep float32: they are ranked
by the errors that they bring in, and as few of them are kept as is enough.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.precision.evaluator import Evaluator
from exporter.formats.precision.fp16 import to_float16
from exporter.formats.precision.int8 import to_int8
from exporter.formats.precision.onnx_io import read, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from exporter.formats.base import Conversion, Target
    from exporter.formats.precision.evaluator import Verdict
    from exporter.formats.precision.result import ReducedModel
    from exporter.parity.reference_set import ReferenceSet

__all__ = ["reduce_precision"]

# Files that are not much smaller are worth a word.
WORTHWHILE = 0.9


def reduce_precision(
    path: Path,
    conversion: Conversion,
    target: Target,
    references: ReferenceSet,
    *,
    symmetric: bool = False,
) -> Conversion:
    """Rewrite an ONNX file in place in the target's precision; its inputs and outputs stay.

    Args:
        path: The file, in float32; beside it lie its external data, and nothing else.
        conversion: What is known of it.
        target: What it is for.
        references: What it must answer, and within which budgets.
        symmetric: Whether int8 is to be centred around zero, as TensorRT needs it; it is as well
            where the target has an accelerator.

    Returns:
        The conversion with what was kept in float32 among its facts, and what was measured.

    Raises:
        ValidationFailedError: The precision costs more than its budget, whatever is kept in
            float32; or the file answers otherwise than the reference already.
        UsageError: ONNX Runtime is not installed.
    """
    precision = target.precision
    if precision == "fp32":
        return conversion
    outputs = conversion.interface.outputs
    with tempfile.TemporaryDirectory(prefix="precision-", dir=path.parent.parent) as scratch:
        evaluator = Evaluator(outputs, references.renamed(conversion.names), Path(scratch))
        before = evaluator.open(path, threads=1)
        verdict = evaluator.evaluate_session(before)
        if verdict.problem:
            raise ValidationFailedError(
                f"the model answers otherwise already as ONNX in float32: {verdict.problem}",
                hint="Export it with --precision fp32 first; its report says more.",
                kind="parity",
            )
        plain = _read(path)
        if precision == "fp16":
            reduced = to_float16(plain, evaluator, target.release)
        else:
            centred = symmetric or bool(target.accelerator)
            reduced = to_int8(plain, evaluator, symmetric=centred)
        del plain
        write(reduced.model, path)
        after = evaluator.open(path, threads=1)
        final = evaluator.evaluate_session(after)
        if final.problem:  # pragma: no cover - it was tried out just so
            raise ValidationFailedError(
                f"in {precision} the model answers otherwise: {final.problem}",
                hint="Use --precision fp32.",
                kind="precision",
            )
        milliseconds = evaluator.milliseconds([before, after])
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    sizes = {"fp32": conversion.bytes, precision: size}
    return replace(
        conversion,
        bytes=size,
        versions={**conversion.versions, **evaluator.versions},
        facts={
            **conversion.facts,
            "reduced": {"kept_float32": list(reduced.kept), "bytes": sizes},
        },
        notes=(*conversion.notes, *reduced.notes, *_size_note(sizes)),
        measured={
            "name": precision,
            "kept_float32": list(reduced.kept),
            "bytes": sizes,
            "milliseconds": dict(zip(sizes, milliseconds, strict=True)),
            "max_abs_error": dict(zip(sizes, _errors(verdict, final, reduced), strict=True)),
        },
    )


def _errors(before: Verdict, after: Verdict, reduced: ReducedModel) -> tuple[float, float]:
    return before.max_abs_error, max(after.max_abs_error, reduced.verdict.max_abs_error)


def _read(path: Path) -> ModelProto:
    try:
        return read(path)
    except Exception as error:
        raise ValidationFailedError(
            f"the ONNX model cannot be rewritten: {first_line(error)}",
            hint="Use --precision fp32.",
            kind="precision",
        ) from error


def _size_note(sizes: Mapping[str, int]) -> tuple[str, ...]:
    before, after = sizes.values()
    if after < WORTHWHILE * before:
        return ()
    return (f"Its files are {after / before:.0%} of their size in float32: little is gained.",)
