"""How much of a torch program inputs exercise: its units, and the rows of its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from exporter.arrays import Arrays
from exporter.interface import Tensor
from exporter.sources.known_values import INDICES, UNKNOWN, Counts, KnownValues
from exporter.sources.pytorch.export_program import arguments_of

__all__ = ["ends_of_embeddings", "exercised_by"]

_ACTIVATIONS = frozenset({
    "relu", "relu_", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "silu_",
    "hardtanh", "hardswish", "mish", "softplus", "prelu", "sigmoid", "tanh",
})  # fmt: skip
_EMBEDDING = torch.ops.aten.embedding.default


def exercised_by(
    program: ExportedProgram,
    tensors: Callable[[Arrays], Sequence[torch.Tensor]],
    inputs: Sequence[Arrays],
) -> Counts:
    """Return how many units were both on and off, and how many rows of embeddings were read.

    A unit is a channel of an activation; it is on where what it takes is positive.
    """
    watch = _Watch(program)
    for given in inputs:
        with torch.no_grad():
            watch.run(*arguments_of(program, tensors(given)))
    found = {}
    if watch.on:
        both = [(on & off) for on, off in watch.on.values()]
        found["units"] = (sum(int(b.sum()) for b in both), sum(b.numel() for b in both))
    if watch.rows:
        seen = sum(len(rows) for rows, _ in watch.rows.values())
        found["embedding rows"] = (seen, sum(size for _, size in watch.rows.values()))
    return found


class _Watch(Interpreter):  # type: ignore[misc]
    """Runs a program and notes what its activations and embeddings take."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)
        self.on: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.rows: dict[str, tuple[set[int], int]] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "call_function" and n.args:
            name = getattr(n.target, "_opname", "")
            if name in _ACTIVATIONS:
                self._note_units(n.name, self.map_nodes_to_values(n.args[0], n))
            elif n.target is _EMBEDDING:
                table, indices = (self.map_nodes_to_values(arg, n) for arg in n.args[:2])
                rows, _ = self.rows.setdefault(n.name, (set(), table.shape[0]))
                rows.update(indices.unique().tolist())
        return super().run_node(n)

    def _note_units(self, name: str, taken: torch.Tensor) -> None:
        # Channels are the second axis of images and series, else the last one.
        channel = 1 if taken.dim() > 3 else taken.dim() - 1
        others = [axis for axis in range(taken.dim()) if axis != channel]
        on, off = taken > 0, taken <= 0
        if others:
            on, off = on.any(others), off.any(others)
        before = self.on.get(name)
        if before is not None and before[0].shape == on.shape:
            on, off = on | before[0], off | before[1]
        self.on[name] = (on, off)


def ends_of_embeddings(program: ExportedProgram, inputs: Sequence[Tensor]) -> list[KnownValues]:
    """Return the first and last row of each embedding that looks an input up, and those beyond."""
    names = [str(name) for name in program.graph_signature.user_inputs]
    found: dict[str, int] = {}
    for node, size in _embeddings(program):
        if node.op == "placeholder" and node.name in names:
            name = inputs[names.index(node.name)].name
            found[name] = min(size, found.get(name, size))
    ends = [KnownValues(name, 0, INDICES, [0, size - 1]) for name, size in found.items()]
    return ends + [KnownValues(name, 0, UNKNOWN, [-1, size]) for name, size in found.items()]


def _embeddings(program: ExportedProgram) -> Iterator[tuple[Node, int]]:
    for node in program.graph_module.graph.nodes:
        if node.op == "call_function" and node.target is _EMBEDDING:
            yield node.args[1], int(node.args[0].meta["val"].shape[0])
