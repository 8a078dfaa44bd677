"""int8: weights per channel and activations per tensor, quantized by ONNX Runtime's own tools.

The scales of activations come from the model's activations on all cases of the reference: add
inputs like production's with ``--samples``. Weights have seven bits: on processors without VNNI the
eighth can overflow a sum of two products, and a bundle must give the same outputs on every
processor.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, version_converter

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.precision.activation_errors import node_errors
from exporter.formats.precision.evaluator import Evaluator
from exporter.formats.precision.node_search import find_float32_nodes
from exporter.formats.precision.onnx_io import opset_of, size, types_of, write
from exporter.formats.precision.qdq import (
    QUANTIZED,
    WEIGHTED,
    add_output_identities,
    map_tensor_names,
    simplify_qdq,
)
from exporter.formats.precision.result import ReducedModel, float32_note, precision_error
from exporter.sources.base import EXTERNAL_DATA_BYTES

__all__ = ["to_int8"]

FLOAT = onnx.TensorProto.FLOAT
# The first opset whose quantized weights have a scale per channel.
_PER_CHANNEL = 13


def to_int8(plain: ModelProto, evaluator: Evaluator, *, symmetric: bool) -> ReducedModel:
    """Return a model in int8, with pairs of quantize and dequantize nodes.

    Args:
        plain: The model, as `exporter.formats.precision.onnx_io.read` returns it.
        evaluator: Compares it with the reference.
        symmetric: Whether activations are centred around zero, as TensorRT needs them.

    Raises:
        ValidationFailedError: Nothing of weight in it can be, or ONNX Runtime cannot quantize it.
    """
    plain = add_output_identities(_with_scales_per_channel(plain))
    types = types_of(plain.graph)
    weighted = [node for node in plain.graph.node if node.op_type in WEIGHTED]
    heavy = [node.name for node in weighted if types.get(node.output[0]) == FLOAT]
    if not heavy:
        raise precision_error("int8", (), None)
    others = [node.name for node in weighted if node.name not in heavy]
    quantizer = _Quantizer(plain, evaluator, others, symmetric=symmetric)
    found = find_float32_nodes(
        lambda kept: evaluator.evaluate(quantizer.quantized(kept)),
        lambda: _ranked(plain, quantizer.quantized(()), evaluator),
        lambda kept: not set(kept).issuperset(heavy),
    )
    if found.kept is None:
        raise precision_error("int8", [n for n in found.worst if n in heavy], found.verdict)
    kept = tuple(node.name for node in plain.graph.node if node.name in found.kept)
    notes = (*float32_note(kept, "int8 loses too much there"), _calibrated_note(evaluator))
    return ReducedModel(quantizer.quantized(found.kept), kept, found.verdict, notes)


def _with_scales_per_channel(plain: ModelProto) -> ModelProto:
    if opset_of(plain) >= _PER_CHANNEL:
        return plain
    try:
        return version_converter.convert_version(plain, _PER_CHANNEL)
    except Exception as error:
        raise ValidationFailedError(
            f"the model has opset {opset_of(plain)} and cannot be brought to {_PER_CHANNEL}, the "
            f"first that int8 can be written in: {first_line(error)}",
            hint=f"Use --precision fp32, or log the model with opset {_PER_CHANNEL} or newer.",
            kind="precision",
        ) from error


def _calibrated_note(evaluator: Evaluator) -> str:
    cases = sum(1 for _ in evaluator.inputs())
    return (
        f"The ranges of int8 are those of the {cases} cases that the model is proven on; numbers "
        "beyond them are cut off. Give real ones with --samples FILE.npz."
    )


def _ranked(plain: ModelProto, quantized: ModelProto, evaluator: Evaluator) -> list[str]:
    """Return nodes in the order in which they are to keep float32, the worst first.

    Where an activation is part of the rounding, its error may come from the node before it or from
    its readers: they follow it.
    """
    seen = map_tensor_names(quantized, plain)
    errors = node_errors(plain, quantized, seen, evaluator)
    able = {node.name for node in plain.graph.node if node.op_type in QUANTIZED}
    makers = {name: node for node in plain.graph.node for name in node.output}
    found: dict[str, None] = {}
    for node in sorted(plain.graph.node, key=lambda node: -errors[node.name]):
        rounded = {name for name in node.output if seen.get(name, name) != name}
        before = [makers[name] for name in node.input if rounded and name in makers]
        readers = [n for n in plain.graph.node if rounded.intersection(n.input)]
        names = (near.name for near in (*before, node, *readers))
        found.update(dict.fromkeys(name for name in names if name in able))
    return list(found)


class _Quantizer:
    """Quantizes one model repeatedly; its ranges are measured once."""

    def __init__(
        self, plain: ModelProto, evaluator: Evaluator, never: Sequence[str], *, symmetric: bool
    ) -> None:
        self._plain = plain
        self._never = never
        self._evaluator = evaluator
        self._symmetric = symmetric
        self._large = size(plain) > EXTERNAL_DATA_BYTES
        self._path: Path = evaluator.folder / "plain.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(plain)
        write(copy, self._path)

    def quantized(self, excluded: Collection[str]) -> ModelProto:
        """Return the model with all but some nodes quantized.

        Raises:
            ValidationFailedError: ONNX Runtime cannot quantize it.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        excluded = [*self._never, *excluded]
        path = self._evaluator.folder / "quantized.onnx"
        # Newer releases of ONNX Runtime keep the ranges; others measure them again.
        keeps = "calibration_cache_path" in inspect.signature(quantize_static).parameters
        ranges = {"calibration_cache_path": self._evaluator.folder / "ranges.json"} if keeps else {}
        try:
            with _quiet():
                quantize_static(
                    self._path,
                    path,
                    _reader(self._evaluator),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTIZED),
                    per_channel=True,
                    reduce_range=not self._symmetric,
                    activation_type=QuantType.QInt8 if self._symmetric else QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=excluded,
                    use_external_data_format=self._large,
                    extra_options={"ActivationSymmetric": self._symmetric},
                    **ranges,
                )
        except Exception as error:
            raise ValidationFailedError(
                f"ONNX Runtime cannot quantize the model: {first_line(error)}",
                hint="Use --precision fp16 or --precision fp32.",
                kind="precision",
            ) from error
        return simplify_qdq(onnx.load(path), self._plain, excluded, symmetric=self._symmetric)


def _reader(evaluator: Evaluator) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Yields the inputs of all cases."""

        def __init__(self) -> None:
            self._inputs = evaluator.inputs()

        def get_next(self) -> Any:
            """Return the next inputs, or None."""
            return next(self._inputs, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer, which logs advice to the root logger."""
    root = logging.getLogger()
    before = root.disabled
    root.disabled = True
    try:
        yield
    finally:
        root.disabled = before
