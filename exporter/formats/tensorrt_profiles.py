"""TensorRT's optimization profiles: the minimum, optimum and maximum shape of every input.

TensorRT refuses sizes outside its profile, so the sizes come from what the model is proven on: the
rows from the batch size, every other variable axis from the reference's cases. A user's
``--samples`` are among these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.interface import Interface, Tensor
    from exporter.parity.reference_set import ReferenceSet

__all__ = ["Profile", "dimensions", "profiles_for", "range_note"]


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes of one input, rows included: the smallest, the fastest and the largest."""

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def as_dict(self) -> dict[str, list[int]]:
        """Return the shapes as the manifest holds them."""
        return {"min": list(self.min), "opt": list(self.opt), "max": list(self.max)}


def profiles_for(
    interface: Interface, references: ReferenceSet, max_batch_size: int
) -> tuple[Profile, ...]:
    """Return a profile of every input that has a variable axis.

    The interface has the references' names; *max_batch_size* is 0 where the first axis is no batch.
    """
    return tuple(
        _profile(tensor, references, max_batch_size)
        for tensor in interface.inputs
        if any(isinstance(axis, str) for axis in tensor.axes)
    )


def range_note(profiles: Sequence[Profile], max_batch_size: int) -> str:
    """Return a note on the sizes that will be refused; empty where none are.

    The batch size does not count: the server itself keeps to it.
    """
    first = 1 if max_batch_size else 0
    ranges = [
        f"{profile.name} {dimensions(profile.min)} to {dimensions(profile.max)}"
        for profile in profiles
        if profile.min[first:] != profile.max[first:]
    ]
    if not ranges:
        return ""
    return (
        f"TensorRT is built for {', '.join(ranges)}, which is what the model is proven on, and "
        "refuses other sizes; prove it on theirs with --samples."
    )


def _profile(tensor: Tensor, references: ReferenceSet, max_batch_size: int) -> Profile:
    shapes = [case.inputs[tensor.name].shape for case in references.all_cases]
    axes = []
    for index, axis in enumerate(tensor.axes):
        if isinstance(axis, int):
            axes.append((axis, axis, axis))
        elif index == 0 and max_batch_size:
            axes.append((1, max(1, max_batch_size // 2), max_batch_size))
        else:
            seen = Counter(shape[index] for shape in shapes)
            axes.append((min(seen), seen.most_common(1)[0][0], max(seen)))
    least, usual, most = zip(*axes, strict=True)
    return Profile(tensor.name, least, usual, most)


def dimensions(shape: Sequence[int]) -> str:
    """Return a shape such as ``1x3``."""
    return "x".join(map(str, shape))
