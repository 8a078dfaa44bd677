"""Torch modules that people register, each with what should come of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import nn
from torch.utils import _pytree as pytree

from tests.zoo import layers, spatiotemporal

from .comparing import Near

__all__ = ["LENGTH_BRANCHES", "ZOO", "Module", "normal", "x"]

Array = np.ndarray[Any, Any]
_RANDOM = np.random.default_rng(7)
_NEAR = Near(2e-3, 2e-4)


def normal(*shape: int) -> Array:
    return _RANDOM.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Module:
    """One torch module.

    Attributes:
        name: What it is registered as.
        make: Makes the module.
        example: What it is logged with, by the names of its inputs.
        form: ``pt2`` or ``pickle``.
        refused: A word of the reason for which it must be refused; empty where it is servable.
        batched: Whether its rows may be batched.
        free: Axes other than the rows that vary, by input.
        longest: The size of those axes in requests of more than two rows; 0 for the example's.
        near: How far its numbers may be off.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Mapping[str, Array]
    form: str = "pickle"
    refused: str = ""
    batched: bool = True
    free: Mapping[str, tuple[int, ...]] | None = None
    longest: int = 0
    near: Near = _NEAR

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

    def register(self) -> None:
        """Log it as its author would."""
        arrays = list(self.example.values())
        if self.form == "pt2":
            given: Any = arrays[0] if len(arrays) == 1 else tuple(arrays)
        else:
            given = dict(self.example)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pytorch.log_model(
                self.module(),
                name="model",
                registered_model_name=self.name,
                input_example=given,
                signature=self.signature(),
                serialization_format=self.form,
                pip_requirements=["torch"],
            )

    def rows(self, count: int) -> dict[str, Array]:
        """Return as many rows of the example, which come again where it has fewer."""
        rows = {name: array[np.arange(count) % len(array)] for name, array in self.example.items()}
        if self.longest and count > 2:
            for name, axes in (self.free or {}).items():
                for axis in axes:
                    places = np.arange(self.longest) % rows[name].shape[axis]
                    rows[name] = rows[name].take(places, axis)
        return rows

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return what it says, asked as its author asks it, in the order of its answer."""
        module = self.module()
        tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
        with torch.no_grad():
            answer = module(tensors) if self.name == "dict-in" else module(*tensors.values())
        return [leaf.numpy() for leaf in pytree.tree_leaves(answer)]


def x(*shape: int) -> dict[str, Array]:
    return {"x": normal(*shape)}


_MASK = np.arange(7)[None] >= np.array([[7], [5], [3], [6]])
_TOKENS = _RANDOM.integers(0, 40, (4, 7))

ZOO: tuple[Module, ...] = (
    # Space and time.
    Module("conv-lstm", spatiotemporal.ConvLSTM, {"frames": normal(3, 4, 2, 6, 6)}),
    Module("temporal-convolution", spatiotemporal.TemporalConvolution, x(4, 12, 3),
           free={"x": (1,)}),
    Module("adaptive-graph", spatiotemporal.AdaptiveGraph, x(4, 6)),
    Module("diffusion-cell", spatiotemporal.DiffusionCell, {"series": normal(4, 6, 5)}),
    Module("masked-transformer", spatiotemporal.MaskedTransformer,
           {"x": normal(4, 7, 4), "padding": _MASK}, free={"x": (1,), "padding": (1,)}),
    Module("causal-transformer", spatiotemporal.CausalTransformer, x(4, 6, 3), free={"x": (1,)}),
    Module("u-net", spatiotemporal.UNet, x(3, 3, 8, 8)),
    Module("u-net-any-size", spatiotemporal.UNet, x(3, 3, 8, 8), free={"x": (2, 3)}),
    Module("spectral-convolution", spatiotemporal.SpectralConvolution, x(4, 16)),
    Module("power-spectrum", spatiotemporal.PowerSpectrum, x(4, 16)),
    Module("graph-attention", spatiotemporal.GraphAttention, x(4, 5, 3)),
    Module("seq2seq", spatiotemporal.Seq2Seq, {"history": normal(4, 5, 2)}, free={"history": (1,)}),
    Module("packed-sequences", spatiotemporal.PackedSequences,
           {"x": normal(4, 6, 3), "lengths": np.array([[6], [3], [4], [1]])}, free={"x": (1,)}),
    # One thing each.
    Module("mlp-pt2", layers.Mlp, x(4, 6), "pt2"),
    Module("mlp", layers.Mlp, x(4, 6)),
    Module("one-row", layers.Mlp, x(1, 6)),
    Module("dict-in", layers.DictIn, {"features": normal(4, 6), "weight": normal(4, 1)}),
    Module("float64-gelu", layers.WideGelu, {"x": normal(4, 6).astype(np.float64)}),
    Module("float64-gelu-pt2", layers.WideGelu, {"x": normal(4, 6).astype(np.float64)}, "pt2"),
    Module("numpy-inside", layers.NumpyInside, x(4, 6)),
    Module("numpy-constants", layers.NumpyConstants, x(4, 6)),
    Module("two-free", layers.TwoFree, {"left": normal(3, 5, 4), "right": normal(3, 6, 4)},
           free={"left": (1,), "right": (1,)}),
    Module("scripted-branch", lambda: torch.jit.script(layers.Branch()), x(4, 6), batched=False),
    Module("scripted-loop", lambda: torch.jit.script(layers.ScriptedLoop()), x(4, 6, 2),
           free={"x": (1,)}),
    Module("scripted-mlp", lambda: torch.jit.script(layers.Mlp()), x(4, 6)),
    Module("scripted-dict", lambda: torch.jit.script(layers.NamedScores()), x(4, 6)),
    Module("traced-mlp", lambda: torch.jit.trace(layers.Mlp().eval(), torch.ones(2, 6)), x(4, 6)),
    Module("nested", layers.Nested, x(4, 5, 4)),
    Module("named-answer", layers.NamedAnswer, x(4, 6)),
    Module("embedded", layers.Embedded, {"tokens": _TOKENS}, free={"tokens": (1,)}),
    Module("quantile", layers.Quantile, x(4, 6)),
    Module("top-k", layers.TopK, x(4, 6)),
    Module("interpolated", layers.Interpolated, x(3, 2, 5, 5)),
    Module("sampled", layers.Sampled, {"image": normal(3, 2, 5, 5), "grid": normal(3, 4, 4, 2)}),
    Module("scatter", layers.Scatter, {"x": normal(4, 6), "group": _RANDOM.integers(0, 4, (4, 6))}),
    Module("in-place", layers.InPlace, x(4, 6)),
    Module("half", layers.Half, {"x": normal(4, 6).astype(np.float16)}),
    Module("residuals", layers.Residuals, x(3, 3, 8, 8)),
    Module("pooled-grid", layers.PooledGrid, x(3, 2, 7, 8), free={"x": (2, 3)}),
    Module("distances", layers.Distances, x(3, 5, 4)),
    Module("bucketed", layers.Bucketed, x(4, 6)),
    Module("optional-input", layers.Weighted, x(4, 6)),
    Module("branch", layers.Branch, x(4, 6), batched=False),
    Module("rare-branch", layers.RareBranch, x(4, 6), batched=False),
    Module("free-loop", layers.ScriptedLoop, x(4, 6, 2), free={"x": (1,)}),
    Module("median", layers.Median, x(4, 6)),
    Module("cached", layers.Cached, x(4, 6)),
    Module("average-frame", layers.AverageFrame, x(4, 6), batched=False),
    Module("batch-centred", layers.BatchCentred, x(4, 6), batched=False),
    # What must not be served.
    Module("noise", layers.Noise, x(4, 6), refused="deterministic"),
    Module("forced-dropout", layers.ForcedDropout, x(4, 6), refused="training mode"),
    Module("counter", layers.Counter, x(4, 6), refused="deterministic"),
    Module("calls", layers.Calls, x(4, 6), refused="changes its own state"),
    Module("unscriptable-branch", layers.UnscriptableBranch, x(4, 6), refused="depends on values"),
    Module("clock", layers.Clock, x(4, 6), refused="clock"),
    Module("text-out", layers.TextOut, x(4, 6), refused="not a tensor"),
    Module("complex-out", layers.ComplexOut, x(4, 6), refused="complex"),
)  # fmt: skip

# What they do with long series, no example shows.
LENGTH_BRANCHES: tuple[Module, ...] = (
    Module("long-branch", layers.LongBranch, x(4, 6, 2), free={"x": (1,)}, longest=80),
    Module("short-branch", layers.ShortBranch, x(4, 20, 2), free={"x": (1,)}, longest=17),
    Module("unscriptable-long-branch", layers.UnscriptableLongBranch, x(4, 6, 2),
           free={"x": (1,)}, refused="size-65 axes"),
)  # fmt: skip
