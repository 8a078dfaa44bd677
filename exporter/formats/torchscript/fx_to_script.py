"""Writes a graph of `torch.export` as TorchScript, operator by operator.

Tracing its module would fix every size that the graph computes: it reads sizes by an operator,
which a trace takes for a number. Here sizes stay variable, modes stay as they were logged, and what
the graph makes on the CPU is made on the device of the inputs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporter.interface import Interface

__all__ = ["NotWritableError", "script_of_graph"]

_BINARY = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//",
    operator.truediv: "/", operator.mod: "%", operator.pow: "**", operator.eq: "==",
    operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
    operator.and_: "and", operator.or_: "or",
}  # fmt: skip
_CALLS: dict[Any, str] = {
    operator.neg: "-({})", operator.not_: "not ({})", torch.sym_not: "not ({})",
    torch.sym_max: "max({}, {})", torch.sym_min: "min({}, {})", max: "max({}, {})",
    min: "min({}, {})", torch.sym_float: "float({})", torch.sym_int: "int({})", int: "int({})",
    float: "float({})", round: "round({})", math.ceil: "math.ceil({})",
    math.floor: "math.floor({})", math.trunc: "int({})", torch.sym_ite: "({1} if {0} else {2})",
}  # fmt: skip
_SIZES = {"sym_size": "{}.size({})", "sym_stride": "{}.stride({})", "sym_numel": "{}.numel()"}
# They check what the proof or the server checks.
_CHECKS = frozenset(
    {"_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range",
     "sym_constrain_range_for_size"}
)  # fmt: skip


class NotWritableError(Exception):
    """The graph holds what has no form in TorchScript, or none that is known here."""


def script_of_graph(module: torch.fx.GraphModule, interface: Interface) -> torch.jit.ScriptModule:
    """Return the script that computes what a graph does.

    It takes tensors by position, and returns one tensor or a flat tuple of them. Scalars have one
    axis of one element.

    Raises:
        NotWritableError: The graph contains more than operators and arithmetic on sizes.
        RuntimeError: TorchScript does not compile the source.
    """
    inputs = [f"INPUT__{index}" for index in range(len(interface.inputs))]
    writer = _Writer(inputs[0])
    pairs = zip(inputs, interface.inputs, strict=True)
    found = writer.write(module, [name if t.axes else f"{name}[0]" for name, t in pairs])
    results = [
        value if tensor.axes else f"{value}.unsqueeze(0)"
        for value, tensor in zip(found, interface.outputs, strict=True)
    ]
    writer.line(f"return ({', '.join(results)})" if len(results) > 1 else f"return {results[0]}")
    arguments = ", ".join(f"{name}: Tensor" for name in inputs)
    source = "\n".join([f"def forward(self, {arguments}):", *writer.lines, ""])
    return _compiled(source, writer.tensors)


def _compiled(source: str, tensors: Mapping[str, torch.Tensor]) -> torch.jit.ScriptModule:
    """Return a script with its tensors, compiled from source."""

    # A class of its own: torch keeps the methods of a class's first script for all others.
    class Script(torch.jit.ScriptModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.training = False
            for name, tensor in tensors.items():
                self.register_buffer(name, tensor.detach())
            self.define(source)

    return Script()


class _Writer:
    """The lines of a script, and the tensors that they name."""

    def __init__(self, anywhere: str) -> None:
        self.lines: list[str] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self._anywhere = anywhere
        self._depth = 1
        self._count = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)

    def assign(self, expression: str) -> str:
        name = f"v{self._count}"
        self._count += 1
        self.line(f"{name} = {expression}")
        return name

    def write(self, module: torch.fx.GraphModule, given: Sequence[Any]) -> list[str]:
        """Write a graph, and return the expressions of its results."""
        values: dict[torch.fx.Node, Any] = {}
        arguments = iter(given)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(arguments)
            elif node.op == "output":
                leaves = pytree.tree_leaves(node.args[0])
                return [self._literal(leaf, values) for leaf in leaves if leaf is not None]
            elif node.op == "get_attr":
                values[node] = self._attribute(module, node)
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.users:
                raise NotWritableError(f"{node.op} {node.target}")
        raise NotWritableError("a graph without output")

    def _attribute(self, module: torch.fx.GraphModule, node: torch.fx.Node) -> Any:
        value: Any = operator.attrgetter(str(node.target))(module)
        if not isinstance(value, torch.Tensor):
            return value  # a graph inside the graph
        if not node.users:
            return ""
        known = (name for name, tensor in self.tensors.items() if tensor is value)
        name = next(known, f"w{len(self.tensors)}")
        self.tensors[name] = value
        return f"self.{name}"

    def _call(self, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):  # noqa: SLF001
            return self._nested(target.name(), node, values)
        if target is operator.getitem:
            whole = values[node.args[0]]
            return whole[node.args[1]] if isinstance(whole, list) else f"{whole}[{node.args[1]}]"
        if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
            return self._operator(target, node, values)
        given = [self._literal(argument, values) for argument in node.args]
        if target in _BINARY and len(given) == 2:
            return self.assign(f"{given[0]} {_BINARY[target]} {given[1]}")
        if target in _CALLS:
            return self.assign(_CALLS[target].format(*given))
        raise NotWritableError(str(target))

    def _operator(
        self, target: Any, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]
    ) -> str:
        namespace, _, name = target._schema.name.partition("::")  # noqa: SLF001
        if name in _CHECKS:
            return ""
        if name in _SIZES:
            given = [self._literal(argument, values) for argument in node.args]
            return self.assign(_SIZES[name].format(*given))
        schema = target._schema.arguments  # noqa: SLF001
        types = {argument.name: argument.type.annotation_str for argument in schema}
        named = [("", kind, value) for kind, value in zip(types.values(), node.args, strict=False)]
        named += [(f"{key}=", types[key], value) for key, value in node.kwargs.items()]
        given = [name + self._literal(value, values, kind) for name, kind, value in named]
        call = f"torch.ops.{namespace}.{name}({', '.join(given)})"
        if target._schema.returns:  # noqa: SLF001
            return self.assign(call)
        self.line(call)
        return ""

    def _nested(
        self, name: str, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]
    ) -> list[str]:
        """Write a graph inside a graph in its place."""
        given = [values[a] if isinstance(a, torch.fx.Node) else a for a in node.args]
        if name == "wrap_with_set_grad_enabled":
            return self.write(given[1], given[2:])
        if name != "cond":
            raise NotWritableError(name)
        decides, *branches, operands = given
        operands = [self._literal(operand, values) for operand in operands]
        results: list[str] = []
        for head, branch in zip((f"if bool({decides}):", "else:"), branches, strict=True):
            self.line(head)
            self._depth += 1
            found = self.write(branch, operands)
            results = results or [f"c{self._count}_{index}" for index in range(len(found))]
            for result, value in zip(results, found, strict=True):
                self.line(f"{result} = {value}")
            self._depth -= 1
        return results

    def _literal(
        self, value: Any, values: Mapping[torch.fx.Node, Any], annotation: str = ""
    ) -> str:
        if isinstance(value, torch.fx.Node):
            return str(values[value])
        if isinstance(value, (list, tuple)):
            items = ", ".join(self._literal(item, values) for item in value)
            if annotation.startswith("Optional["):
                annotation = annotation[len("Optional[") : -1]
            # Without its type an empty list is one of tensors.
            return f"torch.jit.annotate({annotation}, [{items}])" if annotation else f"[{items}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f"float('{value}')"
        if isinstance(value, torch.device) and value.type == "cpu":
            return f"{self._anywhere}.device"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return str(value)
        raise NotWritableError(f"a constant {type(value).__name__}")
