"""Checks an ONNX file before anything runs it."""

from __future__ import annotations

import onnx
from onnx.external_data_helper import uses_external_data

from exporter.errors import ValidationFailedError
from exporter.sources.onnx.graphs import all_nodes

__all__ = ["check_deterministic", "check_operators", "damaged"]

_NOISE = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
     "Bernoulli"}
)  # fmt: skip
# The operators that ONNX Runtime has itself.
_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft",
     "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)  # fmt: skip


def damaged(reason: str) -> ValidationFailedError:
    """Return the error for a file that is no usable ONNX model."""
    return ValidationFailedError(
        f"the ONNX file cannot be used: {reason}",
        hint="Log the model again; onnx.checker.check_model() shows the same on the file.",
        kind="artifact",
    )


def check_operators(proto: onnx.ModelProto) -> None:
    """Check that ONNX Runtime has every operator.

    Raises:
        ValidationFailedError: An operator needs a library of custom operators; its domain is named.
    """
    own = {(function.domain, function.name) for function in proto.functions}
    for node in all_nodes(proto):
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            raise ValidationFailedError(
                f"the ONNX model has the operator {node.op_type} of the domain '{node.domain}', "
                "which ONNX Runtime does not have: it needs a library of custom operators",
                hint="Convert the model without it; what it does to texts or images can stay with "
                "the client.",
                kind="target",
            )


def check_deterministic(proto: onnx.ModelProto) -> None:
    """Check that a model draws no random numbers and is not in training mode.

    Raises:
        ValidationFailedError: It does, or is; the operator is named.
    """
    nodes = list(all_nodes(proto))
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in nodes
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.HasField("t")
    }
    for node in nodes:
        trains = node.op_type == "BatchNormalization" and any(
            a.name == "training_mode" and a.i for a in node.attribute
        )
        # Its third input turns it on; without one, it is off.
        switch = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        if trains or (switch and not _is_false(constants.get(switch))):
            raise ValidationFailedError(
                f"the ONNX model is in training mode: {node.op_type} '{node.name}'",
                hint="Convert it from a model in evaluation mode, and log it again.",
                kind="determinism",
            )
        if node.op_type in _NOISE:
            raise ValidationFailedError(
                f"the ONNX model is not deterministic: {node.op_type} '{node.name}' draws numbers",
                hint="Remove it, and log the model again. What draws numbers cannot be proven.",
                kind="determinism",
            )


def _is_false(tensor: onnx.TensorProto | None) -> bool:
    return (
        tensor is not None
        and tensor.data_type == onnx.TensorProto.BOOL
        and not uses_external_data(tensor)
        and not onnx.numpy_helper.to_array(tensor).any()
    )
