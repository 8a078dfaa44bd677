"""Runs a plan on the first GPU, and compares its outputs with the reference's."""

from __future__ import annotations

from functools import partial

import numpy as np
import tensorrt as trt

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError
from exporter.formats.onnx import check_names
from exporter.formats.tensorrt.plan import Log, failed
from exporter.interface import Axis, Interface, Tensor
from exporter.parity.input_generator import rows_of, take_rows
from exporter.parity.reference_set import ReferenceSet, first_mismatch
from exporter.system.cuda import Memory
from triton_client.types import numpy_dtype

__all__ = ["Engine", "check_plan"]

_DATATYPES = {
    "BOOL": "BOOL", "UINT8": "UINT8", "INT8": "INT8", "INT32": "INT32", "INT64": "INT64",
    "HALF": "FP16", "BF16": "BF16", "FLOAT": "FP32",
}  # fmt: skip
"""TensorRT's names of types, with Triton's."""


class Engine:
    """A plan, loaded.

    Raises:
        ValidationFailedError: TensorRT does not load the plan that it built.
    """

    def __init__(self, plan: bytes, memory: Memory) -> None:
        self._memory = memory
        self._log = Log()
        self._runtime = trt.Runtime(self._log)
        engine = self._runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
        if engine is None or context is None:
            raise failed(f"TensorRT does not load its own plan: {self._log.messages()}")
        self._engine, self._context = engine, context

    def interface(self, known: Interface) -> Interface:
        """Return what the plan takes and gives, with the order and symbols of the ONNX model.

        Raises:
            ValidationFailedError: The plan has other tensors.
        """
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        check_names(
            known,
            inputs,
            outputs,
            what="plan",
            hint="Use --format onnx, or remove what no output depends on from the model.",
        )
        return Interface(
            tuple(map(self._tensor, known.inputs)), tuple(map(self._tensor, known.outputs))
        )

    def run(self, inputs: Arrays, outputs: tuple[Tensor, ...]) -> dict[str, Array]:
        """Return the plan's outputs.

        Raises:
            ValidationFailedError: It refuses the inputs, or an output has no known size.
            CudaError: The GPU fails.
        """
        context, memory = self._context, self._memory
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise failed(
                    f"the plan refuses shape {list(array.shape)} of input '{name}': "
                    f"{self._log.messages()}"
                )
            context.set_tensor_address(name, memory.upload(f"input {name}", array))
        shapes = {}
        for tensor in outputs:
            shape = tuple(context.get_tensor_shape(tensor.name))
            if min(shape, default=0) < 0:
                raise failed(f"the shape of output '{tensor.name}' depends on the inputs' values")
            size = int(np.prod(shape)) * numpy_dtype(tensor.datatype).itemsize
            context.set_tensor_address(tensor.name, memory.block(f"output {tensor.name}", size))
            shapes[tensor.name] = shape
        if not context.execute_async_v3(memory.stream):
            raise failed(f"the plan cannot be run: {self._log.messages()}")
        memory.wait()
        return {
            tensor.name: memory.download(
                f"output {tensor.name}", numpy_dtype(tensor.datatype), shapes[tensor.name]
            )
            for tensor in outputs
        }

    def _tensor(self, known: Tensor) -> Tensor:
        datatype = self._engine.get_tensor_dtype(known.name).name
        if datatype not in _DATATYPES:
            raise failed(f"'{known.name}' has a type that Triton has not: {datatype}")
        axes: list[Axis] = []
        for index, size in enumerate(self._engine.get_tensor_shape(known.name)):
            symbol = known.axes[index] if index < len(known.axes) else ""
            variable = symbol if isinstance(symbol, str) and symbol else f"{known.name}.{index}"
            axes.append(int(size) if size >= 0 else variable)
        return Tensor(known.name, _DATATYPES[datatype], tuple(axes))


def check_plan(
    plan: bytes, known: Interface, references: ReferenceSet, max_batch_size: int
) -> Interface:
    """Run every case of the reference on a plan, and return the plan's interface.

    *known* is that of the ONNX model; a plan takes at most *max_batch_size* rows, if it is not 0.

    Raises:
        ValidationFailedError: An output differs; the case and the output are named.
        CudaError: The GPU fails.
    """
    with Memory() as memory:
        loaded = Engine(plan, memory)
        interface = loaded.interface(known)
        outputs = interface.outputs
        run = partial(_run, loaded, outputs=outputs, max_batch_size=max_batch_size)
        mismatch = first_mismatch(run, references, outputs)
        del loaded, run  # the engine goes before its memory
    if mismatch:
        raise ValidationFailedError(
            f"what TensorRT computes differs from the registered model: {mismatch}",
            hint="Where it is a matter of precision, use --precision fp32; else use --format onnx.",
            kind="parity",
        )
    return interface


def _run(
    loaded: Engine, inputs: Arrays, outputs: tuple[Tensor, ...], max_batch_size: int
) -> dict[str, Array]:
    """Run inputs, in pieces where they have more rows than the plan takes."""
    rows = rows_of(inputs) if max_batch_size else 0
    if rows <= max_batch_size:
        return loaded.run(inputs, outputs)
    pieces = [
        loaded.run(take_rows(inputs, slice(start, start + max_batch_size)), outputs)
        for start in range(0, rows, max_batch_size)
    ]
    return {t.name: np.concatenate([piece[t.name] for piece in pieces]) for t in outputs}
