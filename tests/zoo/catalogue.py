"""Models that people register, each with what should come of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import nn
from torch.utils import _pytree as pytree

from . import layers, spatiotemporal

__all__ = ["ZOO", "Entry", "answers", "log", "rows"]

Array = np.ndarray[Any, Any]
_RANDOM = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return _RANDOM.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: What it is registered as.
        make: Makes the module.
        example: What it is logged with, by the names of its inputs.
        form: ``pt2`` or ``pickle``.
        refused: A word of the reason for which it must be refused; empty where it is servable.
        batched: Whether its rows may be batched.
        free: Axes beside the rows that vary, by input.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Mapping[str, Array]
    form: str = "pickle"
    refused: str = ""
    batched: bool = True
    free: Mapping[str, tuple[int, ...]] | None = None

    @property
    def servable(self) -> bool:
        return not self.refused

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scripts are deprecated, and registered
            return self.make().eval()

    def signature(self) -> ModelSignature:
        specs = []
        for name, array in self.example.items():
            varying = {0, *(self.free or {}).get(name, ())}
            shape = [-1 if axis in varying else size for axis, size in enumerate(array.shape)]
            specs.append(TensorSpec(array.dtype, shape, name))
        return ModelSignature(inputs=Schema(specs))

    def save(self, path: Path) -> None:
        """Save it as its author would."""
        log(mlflow.pytorch.save_model, self, path=str(path))


def log(write: Callable[..., Any], entry: Entry, **where: Any) -> Any:
    """Log or save an entry."""
    arrays = list(entry.example.values())
    if entry.form == "pt2":
        given: Any = arrays[0] if len(arrays) == 1 else tuple(arrays)
    else:
        given = dict(entry.example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write(
            entry.module(),
            input_example=given,
            signature=entry.signature(),
            serialization_format=entry.form,
            pip_requirements=["torch"],
            **where,
        )


def rows(entry: Entry, count: int) -> dict[str, Array]:
    """Return as many rows of an entry's example, which come again where it has fewer."""
    return {name: array[np.arange(count) % len(array)] for name, array in entry.example.items()}


def answers(entry: Entry, inputs: Mapping[str, Array]) -> list[Array]:
    """Return what the module says, asked as its author asks it, in the order of its answer."""
    module = entry.module()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    with torch.no_grad():
        answer = module(tensors) if entry.name == "dict-in" else module(*tensors.values())
    return [leaf.numpy() for leaf in pytree.tree_leaves(answer)]


def x(*shape: int) -> dict[str, Array]:
    return {"x": normal(*shape)}


_MASK = np.arange(7)[None] >= np.array([[7], [5], [3], [6]])
_TOKENS = _RANDOM.integers(0, 40, (4, 7))

ZOO: tuple[Entry, ...] = (
    # Space and time.
    Entry("conv-lstm", spatiotemporal.ConvLSTM, {"frames": normal(3, 4, 2, 6, 6)}),
    Entry("temporal-convolution", spatiotemporal.TemporalConvolution, x(4, 12, 3),
          free={"x": (1,)}),
    Entry("adaptive-graph", spatiotemporal.AdaptiveGraph, x(4, 6)),
    Entry("diffusion-cell", spatiotemporal.DiffusionCell, {"series": normal(4, 6, 5)}),
    Entry("masked-transformer", spatiotemporal.MaskedTransformer,
          {"x": normal(4, 7, 4), "padding": _MASK}, free={"x": (1,), "padding": (1,)}),
    Entry("causal-transformer", spatiotemporal.CausalTransformer, x(4, 6, 3), free={"x": (1,)}),
    Entry("u-net", spatiotemporal.UNet, x(3, 3, 8, 8)),
    Entry("u-net-any-size", spatiotemporal.UNet, x(3, 3, 8, 8), free={"x": (2, 3)}),
    Entry("spectral-convolution", spatiotemporal.SpectralConvolution, x(4, 16)),
    Entry("power-spectrum", spatiotemporal.PowerSpectrum, x(4, 16)),
    Entry("graph-attention", spatiotemporal.GraphAttention, x(4, 5, 3)),
    Entry("seq2seq", spatiotemporal.Seq2Seq, {"history": normal(4, 5, 2)}, free={"history": (1,)}),
    # One thing each.
    Entry("mlp-pt2", layers.Mlp, x(4, 6), "pt2"),
    Entry("mlp", layers.Mlp, x(4, 6)),
    Entry("one-row", layers.Mlp, x(1, 6)),
    Entry("dict-in", layers.DictIn, {"features": normal(4, 6), "weight": normal(4, 1)}),
    Entry("float64-gelu", layers.WideGelu, {"x": normal(4, 6).astype(np.float64)}),
    Entry("float64-gelu-pt2", layers.WideGelu, {"x": normal(4, 6).astype(np.float64)}, "pt2"),
    Entry("numpy-inside", layers.NumpyInside, x(4, 6)),
    Entry("numpy-constants", layers.NumpyConstants, x(4, 6)),
    Entry("two-free", layers.TwoFree, {"left": normal(3, 5, 4), "right": normal(3, 6, 4)},
          free={"left": (1,), "right": (1,)}),
    Entry("scripted-branch", lambda: torch.jit.script(layers.Branch()), x(4, 6), batched=False),
    Entry("scripted-loop", lambda: torch.jit.script(layers.ScriptedLoop()), x(4, 6, 2),
          free={"x": (1,)}),
    Entry("scripted-mlp", lambda: torch.jit.script(layers.Mlp()), x(4, 6)),
    Entry("traced-mlp", lambda: torch.jit.trace(layers.Mlp().eval(), torch.ones(2, 6)), x(4, 6)),
    Entry("nested", layers.Nested, x(4, 5, 4)),
    Entry("named-answer", layers.NamedAnswer, x(4, 6)),
    Entry("embedded", layers.Embedded, {"tokens": _TOKENS}, free={"tokens": (1,)}),
    Entry("quantile", layers.Quantile, x(4, 6)),
    Entry("top-k", layers.TopK, x(4, 6)),
    Entry("interpolated", layers.Interpolated, x(3, 2, 5, 5)),
    Entry("sampled", layers.Sampled, {"image": normal(3, 2, 5, 5), "grid": normal(3, 4, 4, 2)}),
    Entry("scatter", layers.Scatter, {"x": normal(4, 6), "group": _RANDOM.integers(0, 4, (4, 6))}),
    Entry("in-place", layers.InPlace, x(4, 6)),
    Entry("half", layers.Half, {"x": normal(4, 6).astype(np.float16)}),
    Entry("residuals", layers.Residuals, x(3, 3, 8, 8)),
    Entry("distances", layers.Distances, x(3, 5, 4)),
    Entry("bucketed", layers.Bucketed, x(4, 6)),
    Entry("optional-input", layers.Weighted, x(4, 6)),
    Entry("branch", layers.Branch, x(4, 6), batched=False),
    Entry("rare-branch", layers.RareBranch, x(4, 6), batched=False),
    Entry("free-loop", layers.ScriptedLoop, x(4, 6, 2), free={"x": (1,)}),
    Entry("median", layers.Median, x(4, 6)),
    Entry("cached", layers.Cached, x(4, 6)),
    Entry("average-frame", layers.AverageFrame, x(4, 6), batched=False),
    Entry("batch-centred", layers.BatchCentred, x(4, 6), batched=False),
    # What must not be served.
    Entry("noise", layers.Noise, x(4, 6), refused="deterministic"),
    Entry("forced-dropout", layers.ForcedDropout, x(4, 6), refused="training mode"),
    Entry("counter", layers.Counter, x(4, 6), refused="deterministic"),
    Entry("calls", layers.Calls, x(4, 6), refused="changes its own state"),
    Entry("unscriptable-branch", layers.UnscriptableBranch, x(4, 6), refused="depends on values"),
    Entry("clock", layers.Clock, x(4, 6), refused="clock"),
    Entry("text-out", layers.TextOut, x(4, 6), refused="not a tensor"),
    Entry("complex-out", layers.ComplexOut, x(4, 6), refused="complex"),
)  # fmt: skip
