"""Writes an exported program as ONNX."""

from __future__ import annotations

import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch

from exporter.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch.export import ExportedProgram

__all__ = ["write_onnx"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Above this a model's weights go to a file beside it: they are streamed there tensor by tensor,
# where one protobuf would need several copies of them in memory, and none holds 2 GB.
EXTERNAL_DATA_BYTES = 128 * 1024 * 1024


def write_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    ir: int,
) -> str:
    """Write a program to an ONNX file, with the older exporter where the newer one cannot.

    The program itself is converted, as it was logged: tracing its module again would fold batch
    normalisation and drop-out left in training mode into their evaluation form.

    Returns:
        The name of the exporter that wrote the file.

    Raises:
        ValidationFailed: Neither exporter can write the model.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _dynamo(program, path, inputs, outputs, opset, ir)
        except Exception as error:  # noqa: BLE001 - the exporter raises what its passes raise
            _older(program, path, inputs, outputs, opset, error)
            return "torch.onnx torchscript"
    return "torch.onnx dynamo"


def _dynamo(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    ir: int,
) -> None:
    onnx_program: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=list(inputs),
        output_names=list(outputs),
        verbose=False,
    )
    model = onnx_program.model
    model.ir_version = ir
    _forget_origins(model)
    onnx_program.save(path, external_data=_weight_bytes(program) > EXTERNAL_DATA_BYTES)


def _older(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    first: Exception,
) -> None:
    variable = {
        name: {axis: str(size) for axis, size in enumerate(shape) if not isinstance(size, int)}
        for name, shape in zip((*inputs, *outputs), _shapes(program), strict=True)
    }
    try:
        torch.onnx.export(
            program.module(),
            _example(program),
            str(path),
            dynamo=False,
            # A loaded program has no train() to switch, and nothing in it depends on the mode.
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=min(opset, 20),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=variable,
        )
    except Exception as second:
        raise ValidationFailed(
            f"torch cannot write this model as ONNX: {_first_line(first)}",
            hint="Replace the operator that it names by others, and log the model again.",
            kind="convert",
        ) from second


def _forget_origins(model: Any) -> None:
    # Stack traces and module paths of the machine that logged the model: not part of the model.
    graphs = [model.graph, *model.functions.values()]
    model.metadata_props.clear()
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _weight_bytes(program: ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def _shapes(program: ExportedProgram) -> list[Sequence[Any]]:
    signature = program.graph_signature
    by_name = {node.name: node for node in program.graph.nodes}
    names = [*signature.user_inputs, *signature.user_outputs]
    return [by_name[str(name)].meta["val"].shape for name in names]


def _example(program: ExportedProgram) -> tuple[Any, ...]:
    args, _ = program.example_inputs
    return tuple(args)


def _first_line(error: BaseException) -> str:
    """What torch says of the cause, without the colours that it says it in."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
