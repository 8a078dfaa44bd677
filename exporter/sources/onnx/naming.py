"""Replaces names that a server or a client cannot use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from exporter.interface import unique_names, valid_tensor_name
from exporter.sources.mlmodel import Field, MLModel
from exporter.sources.onnx.graphs import graphs_below

__all__ = ["rename", "renamed_fields", "served_names"]


def served_names(
    inputs: Sequence[str],
    outputs: Sequence[str],
    promised: tuple[Sequence[Field], Sequence[Field]],
) -> dict[str, str]:
    """Return the name by which every input and output of a file is served.

    A usable name stays. Another one becomes the signature's at the same position, where it has one;
    else its valid characters stay. The same file gets the same names.
    """
    result = {name: name for name in (*inputs, *outputs) if valid_tensor_name(name)}
    for own, fields, fallback in ((inputs, promised[0], "input"), (outputs, promised[1], "output")):
        given = [field.name for field in fields]
        by_place = given if len(given) == len(own) and not set(given) & set(own) else list(own)
        for name, preferred in zip(own, by_place, strict=True):
            if name not in result:
                taken = list(result.values())
                result[name] = unique_names([*taken, preferred or name], fallback)[-1]
    return result


def renamed_fields(
    model: MLModel, inputs: Sequence[str], outputs: Sequence[str], names: Mapping[str, str]
) -> MLModel:
    """Return a logged model whose signature has the served names; see `served_names`."""

    def fields(given: tuple[Field, ...], own: Sequence[str]) -> tuple[Field, ...]:
        result = []
        for place, field in enumerate(given):
            name = names.get(field.name, field.name)
            same = len(given) == len(own) and field.name and field.name not in own
            if same and names[own[place]] != own[place]:
                name = names[own[place]]
            result.append(replace(field, name=name))
        return tuple(result)

    return replace(
        model, inputs=fields(model.inputs, inputs), outputs=fields(model.outputs, outputs)
    )


def rename(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename values throughout a file; inner values that have one of the new names get another."""
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return
    known = set(_values(proto.graph))
    for new in sorted(set(changed.values()) & (known - set(changed))):
        free, number = f"{new}_inner", 1
        while free in known or free in changed.values():
            free, number = f"{new}_inner_{number}", number + 1
        changed[new] = free
    for graph in graphs_below(proto.graph):
        _rename(graph, changed)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)
    sparse = [tensor.values for tensor in graph.sparse_initializer]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse):
        value.name = names.get(value.name, value.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = names.get(entry.value, entry.value)


def _values(graph: onnx.GraphProto) -> list[str]:
    names: list[str] = []
    for inner in graphs_below(graph):
        names += [value.name for value in (*inner.input, *inner.output, *inner.initializer)]
        names += [name for node in inner.node for name in (*node.input, *node.output)]
    return names
