"""Rewrites an ONNX model in float32 for a lower precision: ``fp16`` or ``int8``.

The loss is measured on all cases of the reference, against the budgets of the precision
(`exporter.parity.tolerances`). Nodes that lose too much keep float32: they are ranked by the errors
that they add, and as few as possible are kept.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.base import Conversion, Target
from exporter.formats.onnx import size_of
from exporter.formats.precision.evaluator import Evaluator
from exporter.formats.precision.fp16 import to_float16
from exporter.formats.precision.int8 import to_int8
from exporter.formats.precision.onnx_io import read, write
from exporter.parity.reference_set import ReferenceSet
from exporter.sources.onnx.sessions import load_session

__all__ = ["reduce_precision"]

# Above this share of the float32 size, a note says so.
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

    int8 is centred around zero, as TensorRT needs it, where it is to be *symmetric* or the target
    has an accelerator. The returned facts name the nodes that keep float32.

    Raises:
        ValidationFailedError: The precision exceeds its budget, whatever is kept in float32; or the
            file differs from the reference in float32 already.
        UsageError: ONNX Runtime is not installed.
    """
    precision = target.precision
    outputs = conversion.interface.outputs
    with tempfile.TemporaryDirectory(prefix="precision-", dir=path.parent.parent) as scratch:
        evaluator = Evaluator(outputs, references.renamed(conversion.names), Path(scratch))
        before = load_session(path, threads=1)
        verdict = evaluator.evaluate_session(before)
        if verdict.problem:
            raise ValidationFailedError(
                f"the ONNX model differs from the reference in float32 already: {verdict.problem}",
                hint="Export it with --precision fp32 first; its report says more.",
                kind="parity",
            )
        try:
            plain = read(path)
        except Exception as error:
            raise ValidationFailedError(
                f"the ONNX model cannot be rewritten: {first_line(error)}",
                hint="Use --precision fp32.",
                kind="precision",
            ) from error
        if precision == "fp16":
            reduced = to_float16(plain, evaluator, target.release)
        else:
            reduced = to_int8(plain, evaluator, symmetric=symmetric or bool(target.accelerator))
        del plain
        write(reduced.model, path)
        after = load_session(path, threads=1)
        final = evaluator.evaluate_session(after)
        if final.problem:  # pragma: no cover - it was just evaluated
            raise ValidationFailedError(
                f"in {precision} the model differs from the reference: {final.problem}",
                hint="Use --precision fp32.",
                kind="precision",
            )
        milliseconds = evaluator.milliseconds([before, after])
    size = size_of(path.parent)
    sizes = {"fp32": conversion.bytes, precision: size}
    errors = (verdict.max_abs_error, max(final.max_abs_error, reduced.verdict.max_abs_error))
    reduction = {"kept_float32": list(reduced.kept), "bytes": sizes}
    share = size / conversion.bytes
    note = f"Its files are {share:.0%} of their size in float32: little is gained."
    return replace(
        conversion,
        bytes=size,
        versions={**conversion.versions, **evaluator.versions},
        facts={**conversion.facts, "reduced": reduction},
        notes=(*conversion.notes, *reduced.notes, *([note] if share >= WORTHWHILE else [])),
        measured={
            "name": precision,
            **reduction,
            "milliseconds": dict(zip(sizes, milliseconds, strict=True)),
            "max_abs_error": dict(zip(sizes, errors, strict=True)),
        },
    )
