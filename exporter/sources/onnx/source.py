"""An ONNX file as reference, and its exporters for a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from exporter.arrays import Array, Arrays, as_bytes, as_text
from exporter.interface import Interface, Tensor
from exporter.sources.base import InputRejectedError, OnnxExporter, OnnxTarget
from exporter.sources.known_values import Knowledge
from exporter.sources.mlmodel import MLModel, check_signature, frozen_axes
from exporter.sources.onnx.declared_shapes import (
    sizes_that_vary,
    split_shared_symbols,
    with_symbols,
)
from exporter.sources.onnx.examples import logged_example
from exporter.sources.onnx.file_info import FileInfo
from exporter.sources.onnx.naming import renamed_fields, served_names
from exporter.sources.onnx.opset_downgrade import downgrade, downgrade_by_converter, too_new
from exporter.sources.onnx.sessions import open_session
from exporter.sources.onnx.string_locale import PORTABLE_LOCALE
from exporter.sources.onnx.tensors import tensor_of
from exporter.sources.onnx.writer import OnnxWriter

__all__ = ["OnnxSource"]


class OnnxSource:
    """An ONNX file, run by ONNX Runtime.

    Raises:
        ValidationFailedError: ONNX Runtime cannot load it, a tensor cannot be served, or the
            signature does not fit.
        UsageError: ONNX Runtime is not installed.
    """

    flavor = "onnx"
    has_thresholds = False
    sizes_beyond: Mapping[str, Sequence[int]] = MappingProxyType({})
    knowledge = Knowledge()

    def __init__(self, model: MLModel, path: Path, info: FileInfo) -> None:
        self._path, self._info = path, info
        self.operators, self.batching_blocker = info.operators, info.batching_blocker
        maps = info.zipmaps
        self._session, version = open_session(path, english_locale=info.english_locale)
        self.versions: Mapping[str, str] = {"onnxruntime": version}
        inputs = [tensor_of("input", node) for node in self._session.get_inputs()]
        first = inputs[0].axes[0] if inputs and inputs[0].axes else "rows"
        outputs = [
            maps.tensor(node.name, first)
            if node.name in maps.classes
            else tensor_of("output", node)
            for node in self._session.get_outputs()
        ]
        own = [tensor.name for tensor in inputs], [tensor.name for tensor in outputs]
        self._names = served_names(*own, (model.inputs, model.outputs))
        served = renamed_fields(model, *own, self._names)
        example = logged_example(served, inputs, self._names)
        inputs = split_shared_symbols(inputs, example, self._names)
        self.interface = Interface(self._served(inputs), self._served(outputs))
        self._varying = sizes_that_vary(self.interface, example, self.run)
        self.interface = replace(
            self.interface, outputs=with_symbols(self.interface.outputs, self._varying)
        )
        check_signature(served, self.interface.inputs, self.interface.outputs)
        self.example = example
        self.frozen_axes = frozen_axes(served, self.interface.inputs, "the file fixes it")
        self.notes = [*maps.notes(self._names), *self._notes()]

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return ONNX Runtime's outputs; see `Source.run`."""
        own = {served: name for name, served in self._names.items()}
        outputs = [own[tensor.name] for tensor in self.interface.outputs]
        given = {own[name]: as_text(array) for name, array in inputs.items()}
        try:
            answers = self._session.run(outputs, given)
        except Exception as error:
            raise InputRejectedError(str(error).strip().splitlines()[0]) from error
        return {
            self._names[name]: self._array(name, answer)
            for name, answer in zip(outputs, answers, strict=True)
        }

    def run_float64(self, inputs: Arrays) -> None:
        """Return None: the types of an ONNX graph are part of it."""

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return the file as it was logged; for an older release, rewritten; see `Source`."""
        writing = OnnxWriter(self._path, self._names, self._info, self._varying)
        if not too_new(self._info.opsets, self._info.ir, target):
            return (writing.write,)
        return (
            partial(writing.write, rewrite=partial(downgrade, target=target)),
            partial(writing.write, rewrite=partial(downgrade_by_converter, target=target)),
        )

    def _array(self, name: str, answer: Any) -> Array:
        if name in self._info.zipmaps.classes:
            return self._info.zipmaps.array(name, answer)
        return as_bytes(answer)

    def _served(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(replace(t, name=self._names[t.name]) for t in tensors)

    def _notes(self) -> list[str]:
        notes = []
        if self._info.english_locale:
            notes.append(
                f"The case of texts is changed by the locale {PORTABLE_LOCALE}, which every server "
                "has; letters change as in English."
            )
        if self._info.optional_inputs:
            known = ", ".join(f"'{name}'" for name in self._info.optional_inputs)
            notes.append(
                f"The file has a value for {known} of its own, with which it is served; clients "
                "cannot replace it."
            )
        changed = [f"'{old}' as '{new}'" for old, new in self._names.items() if old != new]
        if changed:
            notes.append(f"Names that cannot be served are changed: {', '.join(changed)}.")
        fixed = [t.name for t in self.interface.inputs if t.axes and isinstance(t.axes[0], int)]
        if fixed:
            notes.append(
                f"The file fixes the first axis of '{fixed[0]}', so requests are not put together "
                "into batches; to have that, convert the model with a variable first axis "
                "(torch.onnx.export: dynamic_shapes or dynamic_axes) and log it again."
            )
        return notes
