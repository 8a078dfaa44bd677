"""Rewrites a graph so that its nodes compute in float16, except for those that keep float32.

A tensor keeps its name and its type, and gets a float16 copy (a *half*) under another name where a
node takes or makes one. What still needs the float32 tensor, such as the model's outputs, gets it
by a cast. So adjacent nodes pass halves without a cast, and the bodies of loops and branches may
refer to any tensor around them.

Which inputs of an operator take float16 to make float16 is read from its ONNX schema.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.formats.precision.onnx_io import fresh_name, opset_of, types_of
from exporter.sources.onnx.graphs import graphs_below, inner_graphs

__all__ = ["HalfModel", "halve"]

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Their output types do not depend on inputs.
_MAKERS = frozenset({"Cast", "ConstantOfShape"})
# ONNX Runtime's kernels expect scales in float32.
_NEVER = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True, slots=True)
class HalfModel:
    """A rewritten model, the nodes that compute in float16, and the halves of tensors by name."""

    model: ModelProto
    nodes: tuple[str, ...]
    halves: dict[str, str]


def halve(plain: ModelProto, kept: Collection[str], *, simulated: bool = False) -> HalfModel:
    """Return a model whose nodes compute in float16, or in a simulation of it.

    On a CPU, ONNX Runtime computes halves in float32 and at most rounds between nodes, so that an
    overflow on a GPU does not show. A simulated model stays in float32, with every half rounded by
    two casts that no optimizer may remove.

    The nodes *kept* stay in float32. *plain* is as `onnx_io.read` returns it, and stays as it is.
    """
    model = deepcopy(plain)
    rules = _Rules(opset_of(plain), frozenset(kept), simulated, _names(model.graph))
    graph = _Graph(model.graph, rules, None)
    graph.rewrite()
    return HalfModel(model, tuple(rules.converted), dict(graph.halves))


@dataclass(slots=True)
class _Rules:
    opset: int
    kept: frozenset[str]
    simulated: bool
    taken: set[str]
    converted: list[str] = field(default_factory=list)

    def fresh(self, name: str) -> str:
        return fresh_name(name, self.taken)


class _Graph:
    """One graph while it is rewritten: the main one, or the body of a node of another."""

    def __init__(self, proto: GraphProto, rules: _Rules, outer: _Graph | None) -> None:
        self._proto = proto
        self._rules = rules
        # A body sees the tensors around it.
        self.types: ChainMap[str, int] = outer.types.new_child() if outer else ChainMap()
        self.types.update(types_of(proto))
        self.halves: ChainMap[str, str] = outer.halves.new_child() if outer else ChainMap()
        self._initializers = {tensor.name: tensor for tensor in proto.initializer}
        for value in proto.input:  # a caller may replace it
            self._initializers.pop(value.name, None)
        self._multiplied = {
            n for node in proto.node if node.op_type == "MatMul" for n in node.input
        }
        self._nodes: list[NodeProto] = []
        self._owed: set[str] = set()

    def rewrite(self) -> None:
        """Rewrite the graph in place."""
        for node in self._proto.node:
            self._add(node)
        for value in self._proto.output:
            self._settle(value.name)
        del self._proto.node[:]
        self._proto.node.extend(self._nodes)
        self._clean()

    def type_of(self, name: str) -> int | None:
        """Return the element type of a tensor here or around; None where it is not known."""
        return self.types.get(name) or None

    def _add(self, node: NodeProto) -> None:
        for inner in inner_graphs(node):
            _Graph(inner, self._rules, self).rewrite()
            for name in _used(inner):
                self._settle(name)
        stays = node.name in self._rules.kept or (
            _moves_rows(node) and self._multiplied.intersection(node.output)
        )
        takes = None if stays else _takes_halves(node, self._rules.opset, self.type_of)
        for index, name in enumerate(node.input):
            if takes is not None and index in takes:
                node.input[index] = self._half(name)
            else:
                self._settle(name)
        self._nodes.append(node)
        if takes is not None:
            self._give_halves(node)
            self._rules.converted.append(node.name)

    def _half(self, name: str) -> str:
        """Return the half of a float32 tensor; it is made where there is none yet."""
        if name in self.halves:
            return self.halves[name]
        half = self._rules.fresh(f"{name}.half")
        if name in self._initializers:
            self._proto.initializer.append(self._rounded(self._initializers[name], half))
        else:
            self._settle(name)
            self._cast(name, half)
        self.halves[name] = half
        return half

    def _give_halves(self, node: NodeProto) -> None:
        """Have the last node make halves."""
        if not self._rules.simulated:
            _make_half(node)
        for index, name in enumerate(node.output):
            if not name or self.type_of(name) != FLOAT:
                continue
            half = self._rules.fresh(f"{name}.half")
            if self._rules.simulated:
                node.output[index] = self._rules.fresh(f"{name}.exact")
                self._cast(node.output[index], half)
            else:
                node.output[index] = half
            self.halves[name] = half
            self._owed.add(name)

    def _cast(self, name: str, half: str) -> None:
        """Add the cast from a float32 tensor to its half."""
        if not self._rules.simulated:
            self._append("Cast", name, half, to=HALF)
            return
        between = self._rules.fresh(f"{name}.between")
        self._append("Cast", name, between, to=HALF)
        self._append("Cast", between, half, to=FLOAT)

    def _settle(self, name: str) -> None:
        """Add the cast from a half to the float32 tensor, where it is still missing."""
        if name not in self._owed:
            return
        self._owed.remove(name)
        if self._rules.simulated:
            self._append("Identity", self.halves[name], name)
        else:
            self._append("Cast", self.halves[name], name, to=FLOAT)

    def _append(self, kind: str, source: str, result: str, **attributes: int) -> None:
        name = self._rules.fresh(f"{result}.{kind}")
        self._nodes.append(helper.make_node(kind, [source], [result], name=name, **attributes))

    def _rounded(self, tensor: TensorProto, name: str) -> TensorProto:
        with np.errstate(over="ignore"):
            half = numpy_helper.to_array(tensor).astype(np.float16)
        values = half.astype(np.float32) if self._rules.simulated else half
        return cast("TensorProto", numpy_helper.from_array(values, name))

    def _clean(self) -> None:
        """Remove unused constants, and the type information of removed tensors."""
        used = _used(self._proto)
        kept = [t for t in self._proto.initializer if t.name in used or t.name not in self.halves]
        del self._proto.initializer[:]
        self._proto.initializer.extend(kept)
        there = {name for node in self._nodes for name in node.output}
        kept_info = [value for value in self._proto.value_info if value.name in there]
        del self._proto.value_info[:]
        self._proto.value_info.extend(kept_info)


def _takes_halves(
    node: NodeProto, opset: int, type_of: Callable[[str], int | None]
) -> frozenset[int] | None:
    """Return the inputs that a node takes as halves to make halves; None where it cannot.

    A schema names types by variables: an output is a half where its variable is that of an input
    that can be one. Other inputs may have to stay float32, such as the scales of ``Resize``.
    """
    if node.domain not in {"", "ai.onnx"} or node.op_type in _NEVER or list(inner_graphs(node)):
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    if not all(formal.is_homogeneous for formal in schema.inputs):
        return None

    def formal(names: Sequence[str], formals: Sequence[Any]) -> list[tuple[int, str, int | None]]:
        """Return index, type variable and type of every tensor; the last formal may repeat."""
        return [
            (index, formals[min(index, len(formals) - 1)].type_str, type_of(name))
            for index, name in enumerate(names)
            if name
        ]

    given, made = formal(node.input, schema.inputs), formal(node.output, schema.outputs)
    able = {
        c.type_param_str
        for c in schema.type_constraints
        if "tensor(float16)" in c.allowed_type_strs
    }
    takes = {index: name for index, name, kind in given if kind == FLOAT and name in able}
    halves = set(takes.values())
    unknown = {name for _, name, kind in (*given, *made) if kind is None}
    floats = {name for _, name, kind in made if kind == FLOAT}
    stays = bool(floats - halves) and node.op_type not in _MAKERS
    return None if stays or unknown & halves or not floats else frozenset(takes)


def _moves_rows(node: NodeProto) -> bool:
    """Whether a node moves the first axis behind others, as the last one or the one before.

    ONNX Runtime makes this and a multiplication behind it one node. Where it gives halves, releases
    from 1.27 on (seen up to 1.32) crash when they load the model on a CPU.
    """
    if node.op_type != "Transpose":
        return False
    order = [axis for attribute in node.attribute for axis in attribute.ints]
    others = [axis for axis in order if axis != 0]
    return len(order) > 2 and others == sorted(others) and order.index(0) >= len(order) - 2


def _make_half(node: NodeProto) -> None:
    """Have a node with an explicit output type make float16."""
    if node.op_type == "Cast":
        made = helper.make_attribute("to", HALF)
    elif node.op_type == "ConstantOfShape":
        given = [numpy_helper.to_array(attribute.t) for attribute in node.attribute]
        value = (given or [np.zeros(1)])[0].astype(np.float16)
        made = helper.make_attribute("value", numpy_helper.from_array(value))
    else:
        return
    del node.attribute[:]
    node.attribute.append(made)


def _used(graph: GraphProto) -> set[str]:
    """Every name that a graph, or a body in it, reads."""
    names: set[str] = set()
    for inner in graphs_below(graph):
        names |= {value.name for value in inner.output}
        names |= {name for node in inner.node for name in node.input}
    return names


def _names(graph: GraphProto) -> set[str]:
    """Every name that a graph, or a body in it, gives to a tensor or a node."""
    names: set[str] = set()
    for inner in graphs_below(graph):
        names |= {value.name for value in (*inner.input, *inner.initializer)}
        names |= {name for node in inner.node for name in (node.name, *node.output)}
    return names
