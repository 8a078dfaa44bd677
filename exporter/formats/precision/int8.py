"""int8: weights per channel and activations per tensor, quantized by ONNX Runtime's own tools.

The scales of activations come from the model's activations on all cases of the reference: add
inputs like production's with ``--samples``. Weights have seven bits: on processors without VNNI the
eighth can overflow a sum of two products, and a bundle must give the same outputs on every
processor.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import onnx
from onnx import ModelProto, version_converter

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.precision.evaluator import Evaluator, node_errors
from exporter.formats.precision.node_search import (
    ReducedModel,
    find_float32_nodes,
    float32_note,
    precision_error,
)
from exporter.formats.precision.onnx_io import opset_of, size, types_of, write
from exporter.formats.precision.qdq import (
    QUANTIZED,
    WEIGHTED,
    add_output_identities,
    map_tensor_names,
    simplify_qdq,
)
from exporter.sources.base import EXTERNAL_DATA_BYTES

__all__ = ["quantizer", "to_int8"]

FLOAT = onnx.TensorProto.FLOAT
# The first opset whose quantized weights have a scale per channel.
_PER_CHANNEL = 13


def to_int8(plain: ModelProto, evaluator: Evaluator, *, symmetric: bool) -> ReducedModel:
    """Return a model in int8, with pairs of quantize and dequantize nodes.

    The model is as `onnx_io.read` returns it; TensorRT needs activations that are *symmetric*, that
    is centred around zero.

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
    quantized = quantizer(plain, evaluator, others, symmetric=symmetric)
    found = find_float32_nodes(
        lambda kept: evaluator.evaluate(quantized(kept)),
        lambda: _ranked(plain, quantized(()), evaluator),
        lambda kept: not set(kept).issuperset(heavy),
    )
    if found.kept is None:
        raise precision_error("int8", [n for n in found.worst if n in heavy], found.verdict)
    kept = tuple(node.name for node in plain.graph.node if node.name in found.kept)
    cases = sum(1 for _ in evaluator.inputs())
    calibrated = (
        f"The ranges of int8 are those of the {cases} cases that the model is proven on; numbers "
        "beyond them are cut off. Give real ones with --samples FILE.npz."
    )
    notes = (*float32_note(kept, "int8 loses too much there"), calibrated)
    return ReducedModel(quantized(found.kept), kept, found.verdict, notes)


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
        found |= dict.fromkeys(n.name for n in (*before, node, *readers) if n.name in able)
    return list(found)


def quantizer(
    plain: ModelProto, evaluator: Evaluator, never: Sequence[str], *, symmetric: bool
) -> Callable[[Collection[str]], ModelProto]:
    """Return a function that quantizes all nodes but *never* and those that it takes.

    It raises ValidationFailedError where ONNX Runtime cannot quantize the model.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    path, written = (evaluator.folder / name for name in ("plain.onnx", "quantized.onnx"))
    write(deepcopy(plain), path)
    # Newer releases of ONNX Runtime keep the ranges; others measure them again.
    keeps = "calibration_cache_path" in inspect.signature(quantize_static).parameters
    ranges = {"calibration_cache_path": evaluator.folder / "ranges.json"} if keeps else {}
    log = logging.getLogger()

    def quantized(kept: Collection[str]) -> ModelProto:
        excluded = [*never, *kept]
        before, log.disabled = log.disabled, True  # it gets the quantizer's advice
        try:
            quantize_static(
                path,
                written,
                SimpleNamespace(get_next=partial(next, evaluator.inputs(), None)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                reduce_range=not symmetric,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=excluded,
                use_external_data_format=size(plain) > EXTERNAL_DATA_BYTES,
                extra_options={"ActivationSymmetric": symmetric},
                **ranges,
            )
        except Exception as error:
            raise ValidationFailedError(
                f"ONNX Runtime cannot quantize the model: {first_line(error)}",
                hint="Use --precision fp16 or --precision fp32.",
                kind="precision",
            ) from error
        finally:
            log.disabled = before
        return simplify_qdq(onnx.load(written), plain, excluded, symmetric=symmetric)

    return quantized
