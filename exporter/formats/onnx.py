"""ONNX for Triton's onnxruntime backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError, first_line
from exporter.formats.base import Conversion, Target
from exporter.formats.first_valid import export_first_valid, precheck
from exporter.formats.tensorrt_accelerator import with_accelerator
from exporter.interface import Axis, Interface, Tensor
from exporter.parity.reference_set import ReferenceSet
from exporter.sources.base import OnnxExporter, OnnxTarget, Source
from exporter.sources.onnx.declared_shapes import free_sizes
from exporter.sources.onnx.sessions import load_session, run_session
from exporter.triton.releases import Release
from triton_client.types import wire_datatype

__all__ = ["FILENAME", "check_names", "convert", "size_of"]

FILENAME = "model.onnx"
# What every release from 23.05 on loads, and what torch's exporter writes without conversion.
OPSET, IR = 18, 8
# Checking a larger file here, to choose between exporters, would cost as much as the proof.
MOST_PRECHECKED = 128 * 1024 * 1024


def convert(source: Source, folder: Path, target: Target, references: ReferenceSet) -> Conversion:
    """Write ``model.onnx``; see `exporter.formats.convert`."""
    conversion = _export(source, folder, target, references)
    answered = _answered(folder / FILENAME, source.interface.outputs, references)
    conversion = replace(conversion, answered=answered)
    if target.rows is not None:
        conversion = _fix_rows(folder / FILENAME, conversion, target.rows)
    if target.precision != "fp32":
        from exporter.formats.precision import reduce_precision

        conversion = reduce_precision(folder / FILENAME, conversion, target, references)
    return with_accelerator(conversion, folder, target, references)


def _export(source: Source, folder: Path, target: Target, references: ReferenceSet) -> Conversion:
    own = references.in_own_precision()
    release = target.release
    outputs = source.interface.outputs

    def is_valid(conversion: Conversion, place: Path) -> bool:
        if references.contradicts(conversion.interface):
            return False

        def load() -> Callable[[Arrays], dict[str, Array]]:
            session = load_session(place / FILENAME)
            return partial(run_session, session, [tensor.name for tensor in outputs])

        return conversion.bytes > MOST_PRECHECKED or not precheck(load, own, outputs)

    return export_first_valid(
        source.onnx_exporters(OnnxTarget(OPSET, IR, release.max_opset, release.max_ir)),
        lambda exporter, place: _write(source, exporter, place, release, references),
        is_valid,
        folder,
    )


def _answered(path: Path, outputs: Sequence[Tensor], references: ReferenceSet) -> tuple[str, ...]:
    """Return the names of the cases that a file answers and the reference refuses."""
    if not references.refused:
        return ()
    try:
        session = load_session(path)
    except Exception:  # noqa: BLE001 - the proof says what is wrong with it
        return ()
    names = [tensor.name for tensor in outputs]
    found = []
    for case in references.refused:
        with suppress(Exception):  # it refuses as well
            run_session(session, names, case.inputs)
            found.append(case.name)
    return tuple(found)


def _write(
    source: Source,
    exporter: OnnxExporter,
    folder: Path,
    release: Release,
    references: ReferenceSet,
) -> Conversion:
    path = folder / FILENAME
    try:
        converter = exporter(path)
    except (ValidationFailedError, OSError):
        raise
    except Exception as error:
        raise ValidationFailedError(
            f"the model cannot be written as ONNX: {first_line(error)}",
            hint="Replace the operator that it names by others, and log the model again.",
            kind="convert",
        ) from error
    proto = onnx.load(path, load_external_data=False)
    _check_release(proto, release)
    if varying := _sizes_that_vary(proto.graph, source.interface, references):
        free_sizes(proto, varying)
        onnx.save(proto, path)
    interface = _interface(proto.graph, source.interface)
    check_names(
        source.interface,
        [tensor.name for tensor in interface.inputs],
        [tensor.name for tensor in interface.outputs],
        what="converted model",
        hint="An input that no output depends on, or one tensor returned twice, is lost in "
        "conversion; remove it from the model and log it again.",
    )
    return Conversion(
        format="onnx",
        backend="onnxruntime",
        filename=FILENAME,
        interface=interface,
        converter=converter,
        versions={"onnx": onnx.__version__},
        bytes=size_of(folder),
    )


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _check_release(proto: onnx.ModelProto, release: Release) -> None:
    opset = max((o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), default=0)
    for what, found, newest in (
        ("opset", opset, release.max_opset),
        ("IR version", proto.ir_version, release.max_ir),
    ):
        if found > newest:
            raise ValidationFailedError(
                f"the ONNX model has {what} {found}; Triton {release.name} with ONNX Runtime "
                f"{release.onnxruntime} loads at most {newest}",
                hint="Export for a newer release (--triton-release), or log the model with an "
                f"older {what}.",
                kind="target",
            )


def check_names(
    reference: Interface, inputs: list[str], outputs: list[str], *, what: str, hint: str
) -> None:
    """Check that what was written has the tensors of the registered model, in any order."""
    for kind, found, tensors in (
        ("inputs", inputs, reference.inputs),
        ("outputs", outputs, reference.outputs),
    ):
        expected = [tensor.name for tensor in tensors]
        if sorted(expected) != sorted(found):
            raise ValidationFailedError(
                f"the {kind} of the {what} are {', '.join(found) or 'none'}; "
                f"the registered model has {', '.join(expected) or 'none'}",
                hint=hint,
                kind="interface",
            )


def _real_inputs(graph: onnx.GraphProto) -> list[Any]:
    held = {initializer.name for initializer in graph.initializer}
    return [value for value in graph.input if value.name not in held]


def _sizes_that_vary(
    graph: onnx.GraphProto, known: Interface, references: ReferenceSet
) -> dict[tuple[str, int], str]:
    """Return the axes that a file fixes at the example's size, with a symbol for each.

    An exporter may take a size for constant, such as a recurrent layer's length, and write a graph
    that holds for others too: whether it does, the numbers at all sizes say. A number as the
    symbol of an input comes from such an exporter.
    """
    found: dict[tuple[str, int], str] = {}
    for tensors, values, arrays in (
        (known.inputs, _real_inputs(graph), [case.inputs for case in references.all_cases]),
        (known.outputs, graph.output, [case.outputs for case in references.all_cases]),
    ):
        by_name = {tensor.name: tensor for tensor in tensors}
        for value in values:
            dims = value.type.tensor_type.shape.dim
            axes = by_name[value.name].axes if value.name in by_name else ()
            for index, (dim, axis) in enumerate(zip(dims, axes, strict=False)):
                sizes = {case[value.name].shape[index] for case in arrays}
                wrong = dim.HasField("dim_value") and not sizes <= {dim.dim_value}
                if isinstance(axis, str) and (wrong or dim.dim_param.isdigit()):
                    found[value.name, index] = axis
    return found


def _interface(graph: onnx.GraphProto, known: Interface) -> Interface:
    def tensors(values: Any, known: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        by_name = {tensor.name: tensor for tensor in known}
        return tuple(_tensor(value, by_name.get(value.name)) for value in values)

    return Interface(
        tensors(_real_inputs(graph), known.inputs), tensors(graph.output, known.outputs)
    )


def _tensor(value: Any, known: Tensor | None) -> Tensor:
    tensor_type = value.type.tensor_type
    # ONNX Runtime infers shapes that a file does not state; a source that ran it knows them.
    if known is not None and (
        not tensor_type.HasField("shape") or len(tensor_type.shape.dim) != len(known.axes)
    ):
        return known
    axes: list[Axis] = []
    for index, dim in enumerate(tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            axes.append(int(dim.dim_value))
        elif known is not None and isinstance(known.axes[index], int):
            axes.append(known.axes[index])
        else:
            axes.append(str(dim.dim_param) or f"{value.name}.{index}")
    if tensor_type.elem_type == onnx.TensorProto.STRING:
        datatype = "BYTES"
    else:
        datatype = wire_datatype(onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type))
    return Tensor(value.name, datatype, tuple(axes))


def _fix_rows(path: Path, conversion: Conversion, rows: int) -> Conversion:
    """Fix the leading axis of every input, and what follows from it in the outputs.

    Triton wants an output's sizes as its ONNX Runtime infers them, and no version infers less than
    what the file states.
    """
    known = conversion.interface
    symbols = {t.axes[0] for t in known.inputs if t.axes and isinstance(t.axes[0], str)}
    if not symbols:
        return conversion
    proto = onnx.load(path, load_external_data=False)
    for value in _real_inputs(proto.graph):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].Clear()
            dims[0].dim_value = rows
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = rows
    proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    onnx.save(proto, path)
    return replace(conversion, interface=_interface(proto.graph, known))
