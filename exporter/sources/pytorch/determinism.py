"""Checks the graph of a model: is it a function of its input alone, and row by row?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from exporter.errors import ValidationFailedError

__all__ = ["branches_on_values", "check_deterministic", "data_dependence"]

# They read a number from a tensor, which may become a size or a factor.
_READS = frozenset({torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default})  # noqa: SLF001
# They read a number or a truth value from a tensor.
_SCRIPT_READS = frozenset(
    f"aten::{name}"
    for name in (
        *("Bool", "Int", "Float", "item", "is_nonzero", "tolist"),
        *("IntImplicit", "FloatImplicit", "ScalarImplicit"),
    )
)


def check_deterministic(program: ExportedProgram, logged: datetime | None) -> None:
    """Check that a program keeps no state, is not training, and reads neither RNG nor clock.

    The graph does not show everything; the reference is also run twice.

    Raises:
        ValidationFailedError: It is no function of its input; the node or buffer is named.
    """
    calls = list(_calls(program))
    for node in calls:
        if layer := _training_layer(node):
            raise ValidationFailedError(
                f"the model was logged in training mode: {layer} '{node.name}' is still training",
                hint="Call model.eval() before mlflow.pytorch.log_model(), and log it again.",
                kind="determinism",
            )
    for node in calls:
        if torch.Tag.nondeterministic_seeded in node.target.tags and _is_active(node):
            raise ValidationFailedError(
                f"the model is not deterministic: '{node.name}' draws random numbers",
                hint="Call model.eval() before logging, and remove noise from forward(). "
                "What draws numbers cannot be proven.",
                kind="determinism",
            )
    if changed := next(_changed_state(program, calls), ""):
        raise ValidationFailedError(
            f"the model changes its own state while it answers ('{changed}'), "
            "so its answers depend on earlier calls",
            hint="Call model.eval(), keep counters and caches outside forward(), and log it again.",
            kind="determinism",
        )
    if logged is not None:
        _check_no_clock(program, logged)


def data_dependence(program: ExportedProgram) -> str:
    """Return why rows may depend on each other; empty where they do not.

    A number that is computed from the inputs, such as the longest row's length, is the same for all
    rows.
    """
    signature = program.graph_signature
    following = {str(name) for name in signature.user_inputs}
    read: set[str] = set()
    for node in program.graph.nodes:
        before = {argument.name for argument in node.all_input_nodes}
        if before & following:
            following.add(node.name)
            if node.target in _READS:
                read.add(node.name)
        if before & read and node.op != "output":
            read.add(node.name)
    if read & {str(name) for name in signature.user_outputs}:
        return "it makes a number of its inputs, which is one for all rows of a batch"
    return ""


def branches_on_values(script: torch.jit.ScriptModule) -> bool:
    """Whether a script reads a tensor's value to choose a branch for all rows."""
    return any(
        node.kind() in _SCRIPT_READS and any(_is_tensor(value) for value in node.inputs())
        for node in _nodes(script.inlined_graph)
    )


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _is_tensor(value: Any) -> bool:
    return value.type().isSubtypeOf(torch._C.TensorType.get())  # type: ignore[no-any-return]  # noqa: SLF001


def _calls(program: ExportedProgram) -> Iterator[Any]:
    """Every call of an operator, in the program and in the graphs inside it, such as branches."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
                    yield node


def _arguments(node: Any) -> dict[str, Any]:
    """A call's arguments by name, defaults included."""
    return {
        argument.name: node.args[index]
        if index < len(node.args)
        else node.kwargs.get(argument.name, argument.default_value)
        for index, argument in enumerate(node.target._schema.arguments)  # noqa: SLF001
    }


def _training_layer(node: Any) -> str:
    arguments, name = _arguments(node), node.target._schema.name  # noqa: SLF001
    if "batch_norm" in name and arguments.get("training") and arguments.get("running_mean"):
        return "batch normalisation"
    if name.endswith("dropout") and arguments.get("train") and arguments.get("p"):
        return "dropout"
    return ""


def _is_active(node: Any) -> bool:
    """Whether a node that can draw random numbers does so with its arguments."""
    arguments = _arguments(node)
    switch = arguments.get("train", arguments.get("training"))
    rate = arguments.get("p", arguments.get("dropout_p", arguments.get("dropout")))
    return not (switch is False or rate == 0)


def _changed_state(program: ExportedProgram, calls: Sequence[Any]) -> Iterator[str]:
    """The buffers and parameters that a run writes to."""
    signature = program.graph_signature
    yield from map(str, signature.buffers_to_mutate.values())
    held = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    for node in calls:
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):  # noqa: SLF001
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and getattr(value, "name", None) in held:
                yield held[value.name]


def _check_no_clock(program: ExportedProgram, logged: datetime) -> None:
    """Check that tracing has not frozen the time of logging into the program."""
    begin, end = (logged + timedelta(minutes=minutes) for minutes in (-60, 5))
    for name, number in _numbers(program):
        for unit in (1.0, 1e3, 1e6, 1e9):
            if begin.timestamp() <= number / unit <= end.timestamp():
                raise ValidationFailedError(
                    f"the model reads the clock, which logging froze at {number!r} in '{name}'",
                    hint="Pass the time in as an input, and log the model again.",
                    kind="determinism",
                )


def _numbers(program: ExportedProgram) -> Iterator[tuple[str, float]]:
    for node in program.graph.nodes:
        for value in pytree.tree_leaves((node.args, node.kwargs)):
            if isinstance(value, (int, float)):
                yield node.name, value
    for name, constant in program.constants.items():
        real = isinstance(constant, torch.Tensor) and not constant.is_complex()
        if real and constant.numel() == 1:
            yield name, float(constant.item())
