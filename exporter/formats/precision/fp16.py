"""float16: weights and computation, with float32 kept where it overflows or loses too much.

The models that are tried out are simulations; see `exporter.formats.precision.float16_graph.halve`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, numpy_helper

from exporter.formats.precision.activation_errors import activation_ranges, node_errors
from exporter.formats.precision.evaluator import Evaluator
from exporter.formats.precision.float16_graph import FLOAT, HalfModel, halve
from exporter.formats.precision.node_search import find_float32_nodes
from exporter.formats.precision.onnx_io import opset_of
from exporter.formats.precision.result import HEAVY, ReducedModel, float32_note, precision_error
from exporter.sources.onnx.graphs import graphs_below, nodes_below
from exporter.triton.releases import Release

__all__ = ["to_float16"]

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

    def simulated(kept: Sequence[str]) -> HalfModel:
        return halve(plain, {*forced, *kept}, simulated=True)

    found = find_float32_nodes(
        lambda kept: evaluator.evaluate(simulated(kept).model),
        lambda: _ranked(plain, simulated(()), evaluator, set(able).difference(forced)),
        lambda kept: _of_weight(plain, able, {*forced, *kept}),
    )
    if found.kept is None or not _of_weight(plain, able, {*forced, *found.kept}):
        raise precision_error("fp16", [*forced, *found.worst], found.verdict)
    why = {**dict.fromkeys(found.kept, _ROUNDED), **forced}
    notes = [
        note
        for reason in dict.fromkeys(why[name] for name in able if name in why)
        for note in float32_note([name for name in able if why.get(name) == reason], reason)
    ]
    kept = tuple(name for name in able if name in why)
    return ReducedModel(halve(plain, kept).model, kept, found.verdict, (*notes, _ON_CPU))


def _forced(
    plain: ModelProto, evaluator: Evaluator, release: Release, able: Sequence[str]
) -> dict[str, str]:
    """Return the nodes that cannot be in float16 whatever the budgets, each with the reason."""
    forced = dict.fromkeys(
        _overflowing(plain, activation_ranges(plain, evaluator), able), _TOO_LARGE
    )
    version = tuple(map(int, release.onnxruntime.split(".")[:2]))
    if version < _MENDED and opset_of(plain) >= _AXES_ARE_INPUTS:
        spoilt = {n.name for n in nodes_below(plain.graph.node) if n.op_type in _WRITTEN_OUT}
        forced |= dict.fromkeys(spoilt.intersection(able), _cannot(release.onnxruntime))
    while True:
        # Some kernels take halves, and refuse them when they run.
        verdict = evaluator.evaluate(halve(plain, forced).model)
        named = set(_QUOTED.findall(verdict.problem)).intersection(able).difference(forced)
        if not verdict.problem or not named:
            return {name: forced[name] for name in able if name in forced}
        forced |= dict.fromkeys(named, _cannot(evaluator.versions["onnxruntime"]))


def _cannot(version: str) -> str:
    return f"ONNX Runtime {version} cannot compute float16 there"


def _of_weight(plain: ModelProto, able: Sequence[str], kept: Collection[str]) -> bool:
    """Whether what is left in float16 is worth it."""
    left = set(able).difference(kept)
    heavy = {node.name for node in nodes_below(plain.graph.node) if node.op_type in HEAVY}
    return bool(heavy & left if heavy.intersection(able) else left)


def _overflowing(
    plain: ModelProto, magnitudes: Mapping[str, float], able: Sequence[str]
) -> set[str]:
    """Return the nodes that take or give numbers beyond what float16 holds."""
    beyond = {name for name, size in magnitudes.items() if size * HEADROOM > MOST}
    beyond |= set(_large_constants(plain.graph))
    names = set(able)
    return {
        node.name
        for node in nodes_below(plain.graph.node)
        if node.name in names and beyond.intersection((*node.input, *node.output))
    }


def _ranked(
    plain: ModelProto, reduced: HalfModel, evaluator: Evaluator, able: set[str]
) -> list[str]:
    """Return nodes in the order in which they are to keep float32, the worst first.

    Behind a node come those that its inputs are from: what it loses by cancellation, they rounded.
    """
    errors = node_errors(plain, reduced.model, reduced.halves, evaluator)
    order = sorted(plain.graph.node, key=lambda node: -errors[node.name])
    makers = {name: node for node in plain.graph.node for name in node.output}
    found: dict[str, None] = {}
    for node in order:
        sources = (makers[name] for name in node.input if name in makers)
        for near in (node, *sources):
            names = (inner.name for inner in nodes_below([near]))
            found.update(dict.fromkeys(name for name in names if name in able))
    return list(found)


def _large_constants(graph: GraphProto) -> Iterator[str]:
    for inner in graphs_below(graph):
        for tensor in inner.initializer:
            if tensor.data_type == FLOAT:
                values = np.abs(numpy_helper.to_array(tensor))
                if ((values > MOST) & np.isfinite(values)).any():
                    yield tensor.name
