"""The MLflow ``onnx`` flavor, run by ONNX Runtime on the CPU as reference."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NoReturn

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from exporter.arrays import as_bytes, as_text
from exporter.errors import UsageError, ValidationFailed
from exporter.interface import Axis, Interface, Tensor
from exporter.names import artifact_path
from exporter.sources.base import Arrays, CannotRun, OnnxTarget, OnnxWay
from exporter.sources.mlmodel import MLModel, check_signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

__all__ = ["OnnxSource", "open_source"]

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def open_source(model: MLModel, *, allow_pickle: bool) -> OnnxSource:  # noqa: ARG001 - an ONNX file holds no pickle
    """Open a logged ONNX model.

    Raises:
        ValidationFailed: The file is damaged, reaches outside its folder, cannot be run, or does
            not fit its signature.
        UsageError: ONNX Runtime is not installed.
    """
    path = model.file(str(model.flavors["onnx"].get("data", "model.onnx")))
    if path.is_dir():
        files = sorted(path.glob("*.onnx"))
        if len(files) != 1:
            _refuse(f"its folder holds {len(files)} .onnx files where one is expected")
        path = files[0]
    try:
        proto = onnx.load(path, load_external_data=False)
        for tensor in _external_tensors(proto):
            artifact_path(ExternalDataInfo(tensor).location)
        _refuse_noise(proto)
        del proto
        onnx.checker.check_model(str(path))
    except ValidationFailed:
        raise
    except Exception as error:  # noqa: BLE001 - protobuf and the checker share no base class
        _refuse(str(error).strip().splitlines()[0] if str(error).strip() else "it is empty")
    return OnnxSource(model, path)


class OnnxSource:
    """An ONNX file as reference."""

    flavor = "onnx"
    mixes_rows = ""

    def __init__(self, model: MLModel, path: Path) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise UsageError(
                "the reference of an ONNX model is run by onnxruntime, which is not installed",
                hint="pip install 'stlab[cpu]' (or 'stlab[gpu]').",
            ) from error
        self.notes: list[str] = []
        self.versions: Mapping[str, str] = {"onnxruntime": ort.__version__}
        self._path = path
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                path, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors derive from Exception
            _refuse(f"ONNX Runtime {ort.__version__} cannot load it: {error}")
        self.interface = Interface(
            tuple(_tensor("input", node) for node in self._session.get_inputs()),
            tuple(_tensor("output", node) for node in self._session.get_outputs()),
        )
        check_signature(model, self.interface.inputs, self.interface.outputs)
        self.example = model.example(self.interface.inputs)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Return ONNX Runtime's answer; see `Source.run`."""
        names = [tensor.name for tensor in self.interface.outputs]
        try:
            answers = self._session.run(names, {k: as_text(v) for k, v in inputs.items()})
        except Exception as error:
            raise CannotRun(str(error).strip().splitlines()[0]) from error
        return {
            tensor.name: as_bytes(answer) if tensor.datatype == "BYTES" else answer
            for tensor, answer in zip(self.interface.outputs, answers, strict=True)
        }

    def run_float64(self, inputs: Arrays) -> None:
        """Return None: the types of an ONNX graph are part of it."""

    def onnx_ways(self, target: OnnxTarget) -> Sequence[OnnxWay]:  # noqa: ARG002 - the graph is kept as it was logged
        """Return the file as it was logged; see `Source.onnx_ways`."""
        return (self._copy,)

    def _copy(self, path: Path) -> str:
        """Copy the file, and its external data under names of ours.

        The names in the file are its author's: a server would take some for code, and MLflow's are
        random, so that the same model would be another bundle each time it is logged.
        """
        proto = onnx.load(self._path, load_external_data=False)
        renamed: dict[str, str] = {}
        for tensor in _external_tensors(proto):
            location = next(entry for entry in tensor.external_data if entry.key == "location")
            number = f".{len(renamed)}" if renamed else ""
            location.value = renamed.setdefault(location.value, f"{path.name}.data{number}")
        if renamed:
            onnx.save(proto, path)
        else:
            shutil.copyfile(self._path, path)
        for theirs, ours in renamed.items():
            shutil.copyfile(self._path.parent / theirs, path.parent / ours)
        return "as logged"


def _external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor whose content lies in a file of its own, in the order of the graph."""
    tensors = [*_tensors(proto.graph)]
    for function in proto.functions:
        tensors += _attribute_tensors(function.node)
    yield from filter(uses_external_data, tensors)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _attribute_tensors(graph.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for subgraph in attribute.graphs:
                yield from _tensors(subgraph)


_NOISE = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
     "Bernoulli"}
)  # fmt: skip


def _refuse_noise(proto: onnx.ModelProto) -> None:
    nodes = [*_nodes(proto.graph.node)]
    for function in proto.functions:
        nodes += _nodes(function.node)
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
        # Its third input switches it on; left out, it is off.
        switch = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        if trains or (switch and not _is_false(constants.get(switch))):
            raise ValidationFailed(
                f"the ONNX model is in training mode: {node.op_type} '{node.name}'",
                hint="Convert it from a model in evaluation mode, and log it again.",
                kind="determinism",
            )
        if node.op_type in _NOISE:
            raise ValidationFailed(
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


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes with those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for subgraph in attribute.graphs:
                yield from _nodes(subgraph.node)


def _tensor(kind: str, node: Any) -> Tensor:
    if node.type not in _DATATYPES:
        raise ValidationFailed(
            f"the {kind} '{node.name}' is a {node.type}, which Triton's onnxruntime backend "
            "does not serve",
            hint="Convert the model with tensors only (skl2onnx: options={'zipmap': False}).",
            kind="interface",
        )
    axes: list[Axis] = []
    for index, size in enumerate(node.shape):
        known = isinstance(size, int) and size >= 0
        axes.append(size if known else str(size or f"{node.name}.{index}"))
    return Tensor(node.name, _DATATYPES[node.type], tuple(axes))


def _refuse(reason: str) -> NoReturn:
    raise ValidationFailed(
        f"the ONNX file cannot be used: {reason}",
        hint="Log the model again; onnx.checker.check_model() shows the same on the file.",
        kind="artifact",
    )
