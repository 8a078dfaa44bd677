"""The MLflow ``pytorch`` flavor saved as pt2: a `torch.export` program, run as it was logged."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils import _pytree as pytree

from exporter.errors import ValidationFailed
from exporter.interface import Axis, Interface, Tensor, unique_names
from exporter.sources.base import Arrays, CannotRun, OnnxTarget, OnnxWay
from exporter.sources.mlmodel import Field, MLModel, check_signature
from exporter.sources.pytorch.archive import load_program
from exporter.sources.pytorch.float64 import run_in_float64
from exporter.sources.pytorch.purity import refuse_impurity
from exporter.sources.pytorch.to_onnx import by_dynamo, by_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch.export import ExportedProgram

__all__ = ["ExportedProgramSource", "open_source"]

_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


def open_source(model: MLModel, *, allow_pickle: bool) -> ExportedProgramSource:
    """Open a logged pytorch model.

    Raises:
        ValidationFailed: It is pickled, damaged, unsafe, left in training mode, keeps state, or
            does not fit its signature.
    """
    folder = model.file(str(model.flavors["pytorch"].get("model_data", "data")))
    archive = folder / "model.pt2"
    if not archive.is_file():
        _refuse_pickle(folder, allow_pickle=allow_pickle)
    program = load_program(archive)
    refuse_impurity(program, model.logged)
    return ExportedProgramSource(model, program)


class ExportedProgramSource:
    """A pt2 archive as reference."""

    flavor = "pytorch-pt2"

    def __init__(self, model: MLModel, program: ExportedProgram) -> None:
        self.notes: list[str] = []
        self.versions: Mapping[str, str] = {"torch": torch.__version__.partition("+")[0]}
        self._program = program
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module = program.module()
        self.interface = _interface(model, program)
        check_signature(model, self.interface.inputs, self.interface.outputs)
        self.example = self._logged_example()

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Return the module's answer; see `Source.run`."""
        arguments = self._tensors(inputs)
        try:
            with torch.no_grad():
                answer = self._module(*arguments)
        except (RuntimeError, AssertionError, IndexError, ValueError) as error:
            raise CannotRun(str(error).strip().splitlines()[0] if str(error) else "") from error
        return self._named(pytree.tree_leaves(answer))

    def run_float64(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the program's answer in float64; see `Source.run_float64`."""
        try:
            return self._named(
                pytree.tree_leaves(run_in_float64(self._program, self._tensors(inputs)))
            )
        except Exception:  # noqa: BLE001 - whatever an operator raises that has no float64 form
            return None

    def onnx_ways(self, target: OnnxTarget) -> Sequence[OnnxWay]:
        """Return both of torch's exporters; see `Source.onnx_ways`."""
        inputs = {tensor.name: tensor.axes for tensor in self.interface.inputs}
        outputs = {tensor.name: tensor.axes for tensor in self.interface.outputs}
        newer = partial(
            by_dynamo, self._program, inputs=list(inputs), outputs=list(outputs), target=target
        )
        older = partial(
            by_tracing, self._program.module(), inputs=inputs, outputs=outputs, target=target
        )
        arguments, _ = self._program.example_inputs or ((), {})
        return (newer, partial(older, tuple(arguments)))

    def _tensors(self, inputs: Arrays) -> list[torch.Tensor]:
        # Copies: a model may write into its arguments.
        return [torch.tensor(inputs[tensor.name]) for tensor in self.interface.inputs]

    def _named(self, leaves: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
        # Clones: a model may hand out a buffer that its next run changes.
        return {
            tensor.name: leaf.detach().clone().contiguous().numpy()
            for tensor, leaf in zip(self.interface.outputs, leaves, strict=True)
        }

    def _logged_example(self) -> Arrays | None:
        if self._program.example_inputs is None:
            return None
        leaves = pytree.tree_leaves(self._program.example_inputs)
        return {
            tensor.name: cast("np.ndarray[Any, Any]", leaf.detach().numpy().copy())
            for tensor, leaf in zip(self.interface.inputs, leaves, strict=True)
        }


def _interface(model: MLModel, program: ExportedProgram) -> Interface:
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    return Interface(
        tuple(
            _tensor(name, nodes[str(graph_name)].meta["val"])
            for name, graph_name in zip(
                _names(signature.user_inputs, model.inputs, "input"),
                signature.user_inputs,
                strict=True,
            )
        ),
        tuple(
            _tensor(name, _output_value(graph_name, nodes))
            for name, graph_name in zip(
                _output_names(program, model.outputs), signature.user_outputs, strict=True
            )
        ),
    )


def _names(own: Sequence[Any], promised: Sequence[Field], fallback: str) -> tuple[str, ...]:
    """The signature's names where it names every tensor; MLflow binds them by position.

    Raises:
        ValidationFailed: It has the model's own names, some of them for other tensors.
    """
    names, given = [str(name) for name in own], [field.name for field in promised]
    if len(given) != len(names) or not all(given):
        return unique_names(names, fallback)
    if set(given) == set(names):
        return unique_names(names, fallback)
    moved = next((n for i, n in enumerate(given) if n in names and names[i] != n), None)
    if moved is not None:
        raise ValidationFailed(
            f"the signature does not fit the model: its {fallback} '{moved}' stands in another "
            f"place than the model's own (the signature has {', '.join(given)}; the model has "
            f"{', '.join(names)})",
            hint="Log the model with a signature that names its tensors in the order of forward().",
            kind="signature",
        )
    return unique_names(given, fallback)


def _output_names(program: ExportedProgram, promised: Sequence[Field]) -> tuple[str, ...]:
    spec = program.call_spec.out_spec
    paths = [
        path
        for path, _ in pytree.tree_flatten_with_path(
            pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
        )[0]
    ]
    if any(isinstance(key, pytree.MappingKey) for path in paths for key in path):
        # The model names its outputs itself; the signature must agree, not rename them.
        return unique_names((_path_name(path) for path in paths), "output")
    own = ["output"] if len(paths) == 1 else [f"output_{index}" for index in range(len(paths))]
    return _names(own, promised, "output")


def _path_name(path: Sequence[Any]) -> str:
    return "_".join(str(getattr(key, "key", getattr(key, "idx", ""))) for key in path)


def _output_value(graph_name: Any, nodes: Mapping[str, Any]) -> torch.Tensor:
    node = nodes.get(str(graph_name))
    value = node.meta.get("val") if node is not None else None
    if not isinstance(value, torch.Tensor):
        raise ValidationFailed(
            f"the model returns {graph_name!r}, which is not a tensor",
            hint="Return tensors only, and log the model again.",
            kind="interface",
        )
    return value


def _tensor(name: str, value: torch.Tensor) -> Tensor:
    if value.dtype not in _DATATYPES:
        raise ValidationFailed(
            f"the tensor '{name}' is {value.dtype}, which this release cannot serve",
            hint=f"Cast it to one of {', '.join(sorted(_DATATYPES.values()))} inside the model.",
            kind="interface",
        )
    axes: tuple[Axis, ...] = tuple(
        size if isinstance(size, int) else str(size) for size in value.shape
    )
    return Tensor(name, _DATATYPES[value.dtype], axes)


def _refuse_pickle(folder: Path, *, allow_pickle: bool) -> None:
    files = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if "model.pth" not in files:
        raise ValidationFailed(
            f"the artifact holds no model.pt2 (it holds: {', '.join(files) or 'nothing'})",
            hint="Log the model again; the version's artifact is damaged.",
            kind="artifact",
        )
    reason = "this release does not load pickles at all" if allow_pickle else "it is a pickle"
    raise ValidationFailed(
        f"model.pth was not loaded: {reason}, and loading one runs code that it carries",
        hint="Log the model with serialization_format='pt2'.",
        kind="unsafe",
    )
