"""Removes quantize/dequantize pairs (QDQ) from a graph where they only cost.

ONNX Runtime's quantizer puts a pair after every tensor that a quantized node takes or makes, for
all its readers: also for nodes that keep float32, and for the model's outputs. Those get the
original tensor back, except after a node that runs in int8 only if all its outputs are quantized,
as convolutions do.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, helper

__all__ = ["QUANTIZED", "WEIGHTED", "add_output_identities", "map_tensor_names", "simplify_qdq"]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that int8 is for."""
# Nodes between them that move or select numbers. Sums, products and curves would lose more than
# they gain.
_BETWEEN = (
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat", "Pad"),
    *("Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Gather"),
)
QUANTIZED = (*WEIGHTED, *_BETWEEN)
"""The operators that are quantized."""

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_ACTIVATIONS = frozenset({"Relu", "Clip"})
_END = "Identity"


def add_output_identities(plain: ModelProto) -> ModelProto:
    """Return a copy with an Identity before every output, which is never quantized."""
    model = deepcopy(plain)
    names = {value.name: f"{value.name}.end" for value in model.graph.output}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = names.get(name, name)
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    inputs = {value.name for value in model.graph.input}
    for value in model.graph.output:
        inner = value.name if value.name in inputs else names[value.name]
        model.graph.node.append(helper.make_node(_END, [inner], [value.name], name=inner))
        model.graph.value_info.add().CopyFrom(value)
        model.graph.value_info[-1].name = inner
    return model


def simplify_qdq(
    quantized: ModelProto, plain: ModelProto, excluded: Collection[str], *, symmetric: bool
) -> ModelProto:
    """Return a quantized model with fewer pairs, in place.

    It is what ONNX Runtime's quantizer makes of *plain*, which has Identity nodes before its
    outputs; *excluded* nodes keep float32, and *symmetric* ranges are centred around zero.
    """
    graph = _Graph(quantized.graph, plain.graph, frozenset(excluded), symmetric=symmetric)
    # From the end: the readers of a tensor come before its maker.
    for pair in reversed(graph.pairs):
        graph.settle(pair)
    graph.finish()
    return quantized


def map_tensor_names(quantized: ModelProto, plain: ModelProto) -> dict[str, str]:
    """Return the name in the quantized model of every tensor of the float32 model.

    It is the tensor before it is quantized, whose rounding counts as the readers'. An activation
    that the quantizer merged into the rounding has only the name after it.
    """
    after = {name: node.name for node in quantized.graph.node for name in node.output}
    pairs = {pair.before: pair.after for pair in _pairs(quantized.graph)}
    seen = {}
    for node in plain.graph.node:
        for name in node.output:
            if name in after:
                seen[name] = name if after[name] == node.name else pairs.get(name, name)
    return seen


@dataclass(frozen=True, slots=True)
class _Pair:
    quantize: NodeProto
    dequantize: NodeProto

    @property
    def before(self) -> str:
        """The tensor that is quantized."""
        return str(self.quantize.input[0])

    @property
    def after(self) -> str:
        """The tensor that is read."""
        return str(self.dequantize.output[0])


def _pairs(graph: GraphProto) -> list[_Pair]:
    quantizers = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
    return [
        _Pair(quantizers[node.input[0]], node)
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantizers
    ]


class _Graph:
    def __init__(
        self, graph: GraphProto, plain: GraphProto, excluded: frozenset[str], *, symmetric: bool
    ) -> None:
        self._graph = graph
        self._excluded = excluded
        self._symmetric = symmetric
        self._added: dict[str, NodeProto] = {}
        self._removed: set[str] = set()
        self._makers = {name: node for node in graph.node for name in node.output}
        self._plain_makers = {name: node for node in plain.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)
        place = {name: index for index, node in enumerate(plain.node) for name in node.output}
        self.pairs = sorted(_pairs(graph), key=lambda pair: place.get(pair.before, -1))

    def settle(self, pair: _Pair) -> None:
        """Give float32 readers the tensor before a pair; remove a pair without readers."""
        readers = list(self._readers.get(pair.after, ()))
        others = [node for node in readers if not self._in_int8(node)]
        around = [node for node in others if node.name in self._excluded]
        maker = self._makers.get(pair.before)
        free = maker is None or not self._in_int8(maker)
        useless = maker is None or (maker.op_type not in _CONVOLUTIONS and others == readers)
        if free or useless:
            around = others
        elif self._symmetric and all(node.op_type in _ACTIVATIONS for node in readers):
            around = readers  # they are rounded behind it
        if around:
            self._lead(around, pair.after, self._raw(pair))
        if not self._readers.get(pair.after):
            self._removed |= {pair.quantize.name, pair.dequantize.name}
            self._readers[pair.before].remove(pair.quantize)

    def finish(self) -> None:
        """Write the nodes that are left, and the constants that they read."""
        nodes = []
        for node in self._graph.node:
            nodes += [self._added[node.name]] if node.name in self._added else []
            nodes += [node] if node.name not in self._removed else []
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(tensors)

    def _in_int8(self, node: NodeProto) -> bool:
        """Whether a node computes in int8."""
        if node.name in self._excluded or node.op_type not in QUANTIZED:
            return False
        if node.op_type in WEIGHTED:
            return True
        readers = [r for name in node.output for r in self._readers.get(name, ())]
        return any(reader.op_type == "QuantizeLinear" for reader in readers)

    def _raw(self, pair: _Pair) -> str:
        """The tensor before a pair, with the activation that was merged into the rounding."""
        maker, plain = self._makers.get(pair.before), self._plain_makers.get(pair.before)
        if plain is None or maker is None or maker.name == plain.name:
            return pair.before
        again = deepcopy(plain)
        again.input[0], again.output[0] = pair.before, f"{pair.before}.raw"
        self._added[pair.quantize.name] = again
        self._readers[pair.before].append(again)
        return str(again.output[0])

    def _lead(self, readers: list[NodeProto], old: str, new: str) -> None:
        for node in readers:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new
            self._readers[old].remove(node)
            self._readers.setdefault(new, []).append(node)
