"""Finds branches and loops of an ONNX file that decide by the values of its inputs.

An ``If`` takes one branch, and a ``Loop`` one number of steps, for all rows of a batch. So a row's
answer may depend on the rows that it comes with, although no example shows it. What depends on
sizes and constants alone is the same for every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from exporter.sources.onnx.graphs import inner_graphs

__all__ = ["value_dependence"]

_Functions = Mapping[tuple[str, str], onnx.FunctionProto]

# Of any tensor they give its size alone.
_SIZES = frozenset({"Shape", "Size"})
# The size of what they give depends on values.
_SELECTIONS = frozenset({"NonZero", "Compress", "Unique", "NonMaxSuppression", "StringSplit"})
# All their inputs but the first one, or all where there is no other, decide about sizes.
_SIZED_BY_INPUTS = frozenset(
    {"Reshape", "Expand", "Slice", "Tile", "Pad", "Resize", "TopK", "OneHot", "Upsample"}
)
_SIZED_BY_ALL = frozenset({"Range", "ConstantOfShape"})


@dataclass
class _Scope:
    """What depends on the values of the inputs.

    Attributes:
        functions: The file's functions.
        values: The tensors whose values do.
        sizes: Those whose sizes do.
        found: The operators that decide by such values.
    """

    functions: _Functions
    values: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)
    found: list[str] = field(default_factory=list)

    def inner(self, more: Iterable[str] = (), *, alone: bool = False) -> _Scope:
        """Return the scope of a graph in a node, or of a function, which sees nothing around it."""
        around: set[str] = set() if alone else self.values
        sizes: set[str] = set() if alone else set(self.sizes)
        return replace(self, values={*around, *more}, sizes=sizes)


def value_dependence(proto: onnx.ModelProto) -> str:
    """Return why a row's answer may depend on other rows; empty where nothing says so."""
    held = {initializer.name for initializer in proto.graph.initializer}
    functions = {(function.domain, function.name): function for function in proto.functions}
    scope = _Scope(functions, {v.name for v in proto.graph.input if v.name not in held})
    _follow(proto.graph.node, scope)
    if not scope.found:
        return ""
    article = "an" if scope.found[0] == "If" else "a"
    return f"{article} {scope.found[0]} node decides by the values of the whole batch"


def _follow(nodes: Iterable[onnx.NodeProto], scope: _Scope) -> None:
    for node in nodes:
        given = [name in scope.values for name in node.input]
        if node.op_type == "If":
            answers = _branches(node, scope, decided=any(given))
        elif node.op_type in {"Loop", "Scan"}:
            answers = _loop(node, scope, given)
        elif (function := scope.functions.get((node.domain, node.op_type))) is not None:
            answers = _call(node, function, scope)
        else:
            sized = _is_sized(node, scope, given)
            scope.sizes.update(node.output if sized else ())
            only_sizes = node.op_type in _SIZES
            answers = [sized if only_sizes else any(given) or _captures(node, scope)] * len(
                node.output
            )
        scope.values.update(
            name for name, depends in zip(node.output, answers, strict=False) if depends and name
        )


def _is_sized(node: onnx.NodeProto, scope: _Scope, given: Sequence[bool]) -> bool:
    """Whether the size of what a node gives depends on values."""
    if node.op_type in _SELECTIONS and any(given):
        return True
    deciding = given if node.op_type in _SIZED_BY_ALL else given[1:]
    by_inputs = node.op_type in _SIZED_BY_INPUTS | _SIZED_BY_ALL and any(deciding)
    return by_inputs or any(name in scope.sizes for name in node.input)


def _captures(node: onnx.NodeProto, scope: _Scope) -> bool:
    """Whether a graph in some other node uses what depends on values."""
    return any(
        name in scope.values
        for graph in inner_graphs(node)
        for part in graph.node
        for name in part.input
    )


def _branches(node: onnx.NodeProto, scope: _Scope, *, decided: bool) -> list[bool]:
    if decided:
        scope.found.append(node.op_type)
    answers = [decided] * len(node.output)
    for graph in inner_graphs(node):
        inner = scope.inner()
        _follow(graph.node, inner)
        for place, value in enumerate(graph.output):
            answers[place] = answers[place] or value.name in inner.values
            if value.name in inner.sizes:
                scope.sizes.add(node.output[place])
    return answers


def _loop(node: onnx.NodeProto, scope: _Scope, given: Sequence[bool]) -> list[bool]:
    """Follow what a body hands to its next step until nothing is added."""
    (body,) = inner_graphs(node)
    loops = node.op_type == "Loop"
    # A Loop's body takes the step first, and the condition; a Scan's takes the states alone.
    taken = [False, *given[1:]] if loops else list(given)
    taken += [False] * (len(body.input) - len(taken))
    decided = loops and any(given[:2])
    while True:
        names = [v.name for v, depends in zip(body.input, taken, strict=False) if depends]
        inner = scope.inner(names)
        inner.found = []
        _follow(body.node, inner)
        handed = [value.name in inner.values for value in body.output]
        following = [False, *handed] if loops else handed
        states = len(given)
        grown = [
            before or (place < states and place < len(following) and following[place])
            for place, before in enumerate(taken)
        ]
        if grown == taken:
            break
        taken = grown
    decided = decided or (loops and bool(handed) and handed[0])
    scope.found.extend(["Loop"] if decided else [])
    scope.found.extend(inner.found)
    answers = handed[1:] if loops else handed
    return [decided or depends for depends in answers]


def _call(node: onnx.NodeProto, function: onnx.FunctionProto, scope: _Scope) -> list[bool]:
    pairs = list(zip(function.input, node.input, strict=False))
    inner = scope.inner((own for own, name in pairs if name in scope.values), alone=True)
    inner.sizes = {own for own, name in pairs if name in scope.sizes}
    _follow(function.node, inner)
    for own, name in zip(function.output, node.output, strict=False):
        scope.sizes.update([name] if own in inner.sizes else [])
    return [name in inner.values for name in function.output]
