"""Several registered models in sequence as one: preprocessing, the model, postprocessing.

The reference runs each part's own reference. The ONNX form is one graph, so that it is published
and proven as one, and copies nothing between its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import onnx
from onnx import compose, helper, version_converter

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError
from exporter.interface import Interface, Tensor
from exporter.sources.base import EXTERNAL_DATA_BYTES, OnnxExporter, OnnxTarget, Source
from exporter.sources.known_values import Knowledge

__all__ = ["PipelineSource"]


class PipelineSource:
    """Models that each take the outputs of the one before.

    Further inputs of a later model are inputs of the whole.

    Raises:
        ValidationFailedError: They do not fit together.
    """

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self._names = list(parts)
        self._parts = list(parts.values())
        self._joints = [
            _joined(self._names[i : i + 2], *self._parts[i : i + 2])
            for i in range(len(self._parts) - 1)
        ]
        self.batching_blocker = next(
            (p.batching_blocker for p in self._parts if p.batching_blocker), ""
        )
        self.has_thresholds = self._parts[0].has_thresholds
        self.operators: frozenset[str] = frozenset()
        self.sizes_beyond = self._parts[0].sizes_beyond
        self.flavor = " + ".join(part.flavor for part in self._parts)
        inputs = {tensor.name: tensor for tensor in self._parts[0].interface.inputs}
        example = self._parts[0].example
        for part, joint in zip(self._parts[1:], self._joints, strict=True):
            for tensor in part.interface.inputs:
                if tensor.name not in joint:
                    if tensor.name in inputs:
                        raise _misfit(f"two of them take an input '{tensor.name}' of the caller's")
                    inputs[tensor.name] = tensor
                    given = (part.example or {}).get(tensor.name)
                    whole = example is not None and given is not None
                    example = {**(example or {}), tensor.name: given} if whole else None  # type: ignore[dict-item]
        self.interface = Interface(tuple(inputs.values()), self._parts[-1].interface.outputs)
        self.example: Arrays | None = example
        self.versions: Mapping[str, str] = {
            name: version for part in self._parts for name, version in part.versions.items()
        }
        self.frozen_axes: Sequence[str] = [
            note for part in self._parts for note in part.frozen_axes
        ]
        self.notes: list[str] = [note for part in self._parts for note in part.notes]

    @cached_property
    def knowledge(self) -> Knowledge:
        """What the first model knows of its inputs, and the last of its outputs; see `Source`."""
        first = self._parts[0].knowledge
        return replace(first, classes=self._parts[-1].knowledge.classes)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the last model's outputs; see `Source.run`."""
        before = self._before_last(inputs)
        return self._parts[-1].run(before)

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the last model's outputs in float64; see `Source.run_float64`."""
        return self._parts[-1].run_float64(self._before_last(inputs))

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return exporters of all parts as one graph, the first of each part first."""
        exporters = [part.onnx_exporters(target) for part in self._parts]
        return [
            partial(self._write, [own[min(number, len(own) - 1)] for own in exporters])
            for number in range(max(map(len, exporters)))
        ]

    def _before_last(self, inputs: Arrays) -> dict[str, Array]:
        given = self._taken(0, inputs)
        for number, (part, joint) in enumerate(zip(self._parts, self._joints, strict=False)):
            answer = part.run(given)
            handed = {name: answer[output] for name, output in joint.items()}
            given = {**self._taken(number + 1, inputs), **handed}
        return given

    def _taken(self, number: int, inputs: Arrays) -> dict[str, Array]:
        joint = self._joints[number - 1] if number else {}
        names = [tensor.name for tensor in self._parts[number].interface.inputs]
        return {name: inputs[name] for name in names if name not in joint}

    def _write(self, exporters: Sequence[OnnxExporter], path: Path) -> str:
        models, writers = [], []
        for name, export in zip(self._names, exporters, strict=True):
            place = path.parent / name
            place.mkdir()
            writers.append(export(place / "part.onnx"))
            models.append(onnx.load(place / "part.onnx"))
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
        prefixed = [
            _with_own_names(model, name)
            for name, model in zip(self._names, _alike(models), strict=True)
        ]
        whole = prefixed[0]
        for index, joint in enumerate(self._joints):
            before, after = self._names[index], self._names[index + 1]
            links = [(f"{before}/{out}", f"{after}/{name}") for name, out in joint.items()]
            outputs = [value.name for value in prefixed[index + 1].graph.output]
            whole = compose.merge_models(whole, prefixed[index + 1], io_map=links, outputs=outputs)
        _name_borders(whole, self.interface)
        size = whole.ByteSize()
        onnx.save(
            whole,
            path,
            save_as_external_data=size > EXTERNAL_DATA_BYTES,
            location=f"{path.name}.data",
        )
        return " + ".join(writers)


def _joined(names: Sequence[str], before: Source, after: Source) -> dict[str, str]:
    """Return the output of one model for each input of the next; by name, else by position."""
    outputs = {tensor.name: tensor for tensor in before.interface.outputs}
    inputs = {tensor.name: tensor for tensor in after.interface.inputs}
    joint = {name: name for name in inputs if name in outputs}
    if not joint:
        if len(outputs) != len(inputs):
            raise _misfit(
                f"the {names[0]} gives {', '.join(map(str, outputs.values()))}, and the {names[1]} "
                f"takes {', '.join(map(str, inputs.values()))}: no name is the same"
            )
        joint = dict(zip(inputs, outputs, strict=True))
    for name, output in joint.items():
        if not _fits(outputs[output], inputs[name]):
            raise _misfit(
                f"the {names[0]} gives {outputs[output]}, and the {names[1]} takes {inputs[name]}"
            )
    return joint


def _fits(given: Tensor, taken: Tensor) -> bool:
    return (
        given.datatype == taken.datatype
        and len(given.axes) == len(taken.axes)
        and all(
            left == right or isinstance(left, str) or isinstance(right, str)
            for left, right in zip(given.axes, taken.axes, strict=True)
        )
    )


def _misfit(reason: str) -> ValidationFailedError:
    return ValidationFailedError(
        f"the models of the pipeline do not fit together: {reason}",
        hint="Log them with tensors of the same names, dtypes and shapes, or correct the tags "
        "stlab.preprocessing and stlab.postprocessing.",
        kind="pipeline",
    )


def _alike(models: Sequence[onnx.ModelProto]) -> list[onnx.ModelProto]:
    """Return the models with the opsets and IR version of the newest of them."""
    newest = max(o.version for m in models for o in m.opset_import if o.domain == "")
    domains: dict[str, int] = {}
    result = []
    for model in models:
        raised = model
        if any(o.domain == "" and o.version != newest for o in model.opset_import):
            raised = version_converter.convert_version(model, newest)
        result.append(raised)
        for opset in raised.opset_import:
            domains[opset.domain] = max(domains.get(opset.domain, 0), opset.version)
    ir = max(model.ir_version for model in result)
    for model in result:
        model.ir_version = ir
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(d, v) for d, v in sorted(domains.items()))
        del model.metadata_props[:]
    return result


def _with_own_names(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    return compose.add_prefix(model, f"{name}/")


def _name_borders(model: onnx.ModelProto, interface: Interface) -> None:
    """Give inputs and outputs their served names, through nodes that copy nothing."""
    graph = model.graph
    graph.name = "pipeline"
    held = {initializer.name for initializer in graph.initializer}
    known = {tensor.name for tensor in interface.inputs}
    first = []
    for value in graph.input:
        if value.name not in held:
            name = value.name.partition("/")[2]
            first.append(helper.make_node("Identity", [name], [value.name]))
            value.name = name if name in known else value.name
    for value in graph.output:
        name = value.name.partition("/")[2]
        graph.node.append(helper.make_node("Identity", [value.name], [name]))
        value.name = name
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
