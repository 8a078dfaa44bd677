"""float16: weights and computation, with float32 kept where it overflows or loses too much.

The models that are tried out are simulations; see `exporter.formats.precision.float16_graph.halve`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, numpy_helper

from exporter.formats.precision.evaluator import Evaluator, activation_ranges, node_errors
from exporter.formats.precision.float16_graph import FLOAT, HalfModel, halve
from exporter.formats.precision.node_search import (
    ReducedModel,
    find_float32_nodes,
    float32_note,
    precision_error,
)
from exporter.formats.precision.onnx_io import opset_of
from exporter.sources.onnx.graphs import graphs_below, nodes_below
from exporter.triton.releases import Release

__all__ = ["to_float16"]

# They have nearly all of a model's weights and work.
HEAVY = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "GRU", "LSTM", "RNN", "Gather"}
)
_TOO_LARGE = "numbers are too large for float16 there"
_ROUNDED = "rounding loses too much there"
# ONNX Runtime writes these out where a CPU has no kernel for float16; before this version in a form
# that opset 18, which made axes inputs, does not allow any more.
_WRITTEN_OUT = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "MeanVarianceNormalization"}
)
_MENDED, _AXES_ARE_INPUTS = (1, 17), 18
_QUOTED = re.compile(r"'([^']+)'")

MOST = float(np.finfo(np.float16).max)
# Production's inputs may be larger than those that the model is tried out on.
HEADROOM = 2.0

_ON_CPU = (
    "On a CPU, ONNX Runtime computes float16 in float32: the file is smaller, nothing is faster. "
    "What rounding costs on a GPU was simulated; a server with production's GPU proves it "
    "(--prove-on HOST:PORT)."
)


def to_float16(plain: ModelProto, evaluator: Evaluator, release: Release) -> ReducedModel:
    """Return a model in float16.

    Raises:
        ValidationFailedError: Nothing of weight in it can be.
    """
    able = halve(plain, ()).nodes
    if not able:
        raise precision_error("fp16", (), None)
    forced = _forced(plain, evaluator, release, able)
    heavy = {node.name for node in nodes_below(plain.graph.node) if node.op_type in HEAVY}
    weight = heavy.intersection(able) or set(able)

    def simulated(kept: Sequence[str]) -> HalfModel:
        return halve(plain, {*forced, *kept}, simulated=True)

    def worthwhile(kept: Sequence[str]) -> bool:
        return not weight.issubset({*forced, *kept})

    found = find_float32_nodes(
        lambda kept: evaluator.evaluate(simulated(kept).model),
        lambda: _ranked(plain, simulated(()), evaluator, set(able).difference(forced)),
        worthwhile,
    )
    if found.kept is None or not worthwhile(found.kept):
        raise precision_error("fp16", [*forced, *found.worst], found.verdict)
    why = {**dict.fromkeys(found.kept, _ROUNDED), **forced}
    kept = tuple(name for name in able if name in why)
    notes = [
        note
        for reason in dict.fromkeys(why[name] for name in kept)
        for note in float32_note([name for name in kept if why[name] == reason], reason)
    ]
    return ReducedModel(halve(plain, kept).model, kept, found.verdict, (*notes, _ON_CPU))


def _forced(
    plain: ModelProto, evaluator: Evaluator, release: Release, able: Sequence[str]
) -> dict[str, str]:
    """Return the nodes that cannot be in float16 whatever the budgets, each with the reason."""
    ranges = activation_ranges(plain, evaluator)
    beyond = {name for name, size in ranges.items() if size * HEADROOM > MOST}
    beyond.update(_large_constants(plain.graph))
    version = tuple(map(int, release.onnxruntime.split(".")[:2]))
    spoils = version < _MENDED and opset_of(plain) >= _AXES_ARE_INPUTS
    forced = {}
    for node in nodes_below(plain.graph.node):
        if spoils and node.op_type in _WRITTEN_OUT:
            forced[node.name] = _cannot(release.onnxruntime)
        elif beyond.intersection((*node.input, *node.output)):
            forced[node.name] = _TOO_LARGE
    forced = {name: forced[name] for name in able if name in forced}
    while True:
        # Some kernels take halves, and refuse them when they run.
        verdict = evaluator.evaluate(halve(plain, forced).model)
        named = set(_QUOTED.findall(verdict.problem)).intersection(able).difference(forced)
        if not named:
            return {name: forced[name] for name in able if name in forced}
        forced |= dict.fromkeys(named, _cannot(evaluator.versions["onnxruntime"]))


def _cannot(version: str) -> str:
    return f"ONNX Runtime {version} cannot compute float16 there"


def _ranked(
    plain: ModelProto, reduced: HalfModel, evaluator: Evaluator, able: set[str]
) -> list[str]:
    """Return nodes in the order in which they are to keep float32, the worst first.

    Behind a node come those that its inputs are from: what it loses by cancellation, they rounded.
    """
    errors = node_errors(plain, reduced.model, reduced.halves, evaluator)
    makers = {name: node for node in plain.graph.node for name in node.output}
    found: dict[str, None] = {}
    for node in sorted(plain.graph.node, key=lambda node: -errors[node.name]):
        near = [node, *(makers[name] for name in node.input if name in makers)]
        found |= dict.fromkeys(inner.name for inner in nodes_below(near) if inner.name in able)
    return list(found)


def _large_constants(graph: GraphProto) -> Iterator[str]:
    for inner in graphs_below(graph):
        for tensor in inner.initializer:
            if tensor.data_type == FLOAT:
                values = np.abs(numpy_helper.to_array(tensor))
                if ((values > MOST) & np.isfinite(values)).any():
                    yield tensor.name
