"""Finds in a graph what makes a model more than a function of its input."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from exporter.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from torch.export import ExportedProgram

__all__ = ["refuse_impurity"]


def refuse_impurity(program: ExportedProgram, logged: datetime | None) -> None:
    """Refuse a program that keeps state, is still training, or had the clock frozen into it.

    What a graph does not show, such as noise, shows when the reference is asked twice.

    Args:
        program: The registered program.
        logged: When it was logged.

    Raises:
        ValidationFailed: It is no function of its input; the node or buffer is named.
    """
    _refuse_training(program)
    _refuse_state(program)
    _refuse_clock(program, logged)


def _refuse_state(program: ExportedProgram) -> None:
    changed = next(_changed_state(program), None)
    if changed is not None:
        raise ValidationFailed(
            f"the model changes its own state while it answers ('{changed}'), "
            "so its answers depend on what was asked before",
            hint="Call model.eval(), keep counters and caches outside forward(), and log it again.",
            kind="determinism",
        )


def _refuse_training(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if node.op == "call_function" and (layer := _training_layer(node)):
            raise ValidationFailed(
                f"the model was logged in training mode: {layer} '{node.name}' is still training",
                hint="Call model.eval() before mlflow.pytorch.log_model(), and log it again.",
                kind="determinism",
            )


def _changed_state(program: ExportedProgram) -> Iterator[str]:
    """The buffers and parameters that a run writes into."""
    signature = program.graph_signature
    yield from map(str, signature.buffers_to_mutate.values())
    held = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and getattr(value, "name", None) in held:
                yield held[value.name]


def _training_layer(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return ""
    arguments = {
        argument.name: node.args[index]
        if index < len(node.args)
        else node.kwargs.get(argument.name)
        for index, argument in enumerate(schema.arguments)
    }
    name = schema.name
    if "batch_norm" in name and arguments.get("training") and arguments.get("running_mean"):
        return "batch normalisation"
    if name.endswith("dropout") and arguments.get("train") and arguments.get("p"):
        return "dropout"
    return ""


def _refuse_clock(program: ExportedProgram, logged: datetime | None) -> None:
    """Refuse a program into which tracing has frozen the time it was logged at."""
    if logged is None:
        return
    begin, end = (logged + timedelta(minutes=minutes) for minutes in (-60, 5))
    for name, number in _numbers(program):
        for unit in (1.0, 1e3, 1e6, 1e9):
            if begin.timestamp() <= number / unit <= end.timestamp():
                raise ValidationFailed(
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
        if isinstance(constant, torch.Tensor) and constant.numel() == 1:
            yield name, float(constant.item())
