"""Generates the inputs that a model is proven on, shaped by its logged example.

The same interface, example and seed give the same inputs, on any machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError
from exporter.interface import Interface, Tensor, base_of
from exporter.parity.value_generators import EDGES, differ, edge, random_values
from triton_client.types import numpy_dtype

__all__ = [
    "SIZE",
    "Case",
    "InputGenerator",
    "equal_rows",
    "interleave_real_rows",
    "named_samples",
    "rows_of",
    "take_rows",
]

SEED = 20_240_229
SIZE = "size-"
"""How the names of cases begin whose size is next to the range of a program."""


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs under a name that a report can show.

    Those that are *kept* go into the bundle's samples; *usual* ones have outputs of typical size.
    """

    name: str
    inputs: Arrays
    kept: bool = True
    usual: bool = True


class InputGenerator:
    """Generates inputs for one interface; sizes of variable axes come from the logged example."""

    def __init__(self, interface: Interface, example: Arrays | None, seed: int = SEED) -> None:
        self.inputs = interface.inputs
        self.example = example
        self.seed = seed
        self.sizes: dict[str, int] = {}
        for tensor in interface.inputs:
            for index, axis in enumerate(tensor.axes):
                if isinstance(axis, str):
                    found = 2 if example is None else int(example[tensor.name].shape[index])
                    self.sizes.setdefault(axis, max(1, found))
        # A multiple follows from its base, where that is a size of its own.
        multiples = {axis: base_of(axis) for axis in self.sizes if base_of(axis)[0] in self.sizes}
        self._multiples = {axis: found for axis, found in multiples.items() if found[0] != axis}
        for axis, (base, factor) in self._multiples.items():
            self.sizes[axis] = self.sizes[base] * factor

    @property
    def row_symbols(self) -> frozenset[str]:
        """The symbols of the leading axes."""
        return frozenset(t.axes[0] for t in self.inputs if t.axes and isinstance(t.axes[0], str))

    @property
    def example_rows(self) -> int | None:
        """The rows of the example, or None where its inputs differ in them."""
        sizes = {self.sizes[symbol] for symbol in self.row_symbols}
        return sizes.pop() if len(sizes) == 1 else None

    def random(
        self,
        label: str,
        sizes: Mapping[str, int] = MappingProxyType({}),
        *,
        rows: int | None = None,
        diversity_level: int = 0,
    ) -> dict[str, Array]:
        """Return random rows, of which every label has its own; see `random_values`.

        *rows* is the size of the leading axes, *sizes* those of other variable axes by symbol; the
        example's where they are not given.
        """
        values = partial(random_values, diversity_level=diversity_level)
        return self._each(label, values, rows, sizes)

    def edges(self, *, rows: int | None = None) -> Iterator[Case]:
        """Yield inputs at the limits of the example's range."""
        seen: list[Arrays] = []
        for name, border in EDGES.items():
            inputs = self._each(name, partial(edge, border=border), rows, {})
            # For whole numbers some edges are the same.
            if not any(
                all(np.array_equal(array, earlier[key]) for key, array in inputs.items())
                for earlier in seen
            ):
                seen.append(inputs)
                yield Case(f"edge {name}", inputs, usual=False)

    def other_sizes(
        self, beyond: Mapping[str, Sequence[int]], *, leading: bool = False
    ) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield other sizes of variable axes, of *leading* ones too where these are not rows.

        *beyond* has more, by symbol.
        """
        symbols = sorted(
            set(self.sizes) - set(self._multiples) - (set() if leading else self.row_symbols)
        )
        if not symbols:
            return
        yield "longer", {s: self.sizes[s] + 1 + i for i, s in enumerate(symbols)}
        yield "shorter", {s: max(1, self.sizes[s] // 2) for s in symbols}
        yield "double", {s: self.sizes[s] * 2 for s in symbols}
        for symbol in symbols:
            for size in beyond.get(symbol, ()):
                yield f"{SIZE}{size}", {symbol: size}

    def _each(
        self,
        label: str,
        values: Callable[..., Array],
        rows: int | None,
        sizes: Mapping[str, int],
    ) -> dict[str, Array]:
        """Return values for every input."""
        random = np.random.default_rng([self.seed, zlib.crc32(label.encode())])
        return {
            tensor.name: values(
                tensor,
                self._shape(tensor, rows, sizes),
                None if self.example is None else self.example[tensor.name],
                random,
            )
            for tensor in self.inputs
        }

    def _shape(self, tensor: Tensor, rows: int | None, sizes: Mapping[str, int]) -> tuple[int, ...]:
        shape = []
        for index, axis in enumerate(tensor.axes):
            if isinstance(axis, int):
                shape.append(axis)
            elif index == 0 and rows is not None:
                shape.append(rows)
            else:
                base, factor = self._multiples.get(axis, (axis, 1))
                shape.append(sizes.get(base, self.sizes[base]) * factor)
        return tuple(shape)


def equal_rows(inputs: Arrays) -> list[str]:
    """Return the inputs of a batch in which no two rows differ."""
    return [name for name, array in inputs.items() if not differ(array)]


def interleave_real_rows(rows: Arrays, real: Iterable[Arrays]) -> dict[str, Array]:
    """Return a batch with every other row replaced by a real one, as far as there are any.

    Real rows of other sizes are left out.
    """
    fitting = [
        batch
        for batch in real
        if all(batch[name].shape[1:] == array.shape[1:] for name, array in rows.items())
    ]
    mixed = {name: array.copy() for name, array in rows.items()}
    for name, array in mixed.items():
        found = [row for batch in fitting for row in batch[name]]
        for place, row in zip(range(1, len(array), 2), found, strict=False):
            array[place] = row
    return mixed


def rows_of(inputs: Arrays) -> int:
    """Return the number of rows of a batch."""
    return int(next(iter(inputs.values())).shape[0])


def take_rows(arrays: Arrays, rows: slice | Array) -> dict[str, Array]:
    """Return some rows of every array."""
    return {name: array[rows] for name, array in arrays.items()}


def named_samples(arrays: Arrays, interface: Interface) -> list[Case]:
    """Turn a user's npz into cases: ``input`` alone, or ``case/input``.

    Raises:
        ValidationFailedError: A name, dtype or shape does not fit the model, or two cases have one
            name.
    """
    tensors = {tensor.name: tensor for tensor in interface.inputs}
    cases: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        # Names of inputs may contain slashes too.
        known = max((n for n in tensors if f"/{key}".endswith(f"/{n}")), key=len, default=None)
        name = key.rpartition("/")[2] if known is None else known
        case = key.removesuffix(name).removesuffix("/").replace("/", "_") or "sample"
        if name in cases.setdefault(case, {}):
            raise _misfit(f"two cases are called '{case}'")
        cases[case][name] = array
    for case, inputs in cases.items():
        if sorted(inputs) != sorted(tensors):
            raise _misfit(f"'{case}' has {sorted(inputs)}, the model takes {sorted(tensors)}")
        for name, array in inputs.items():
            tensor = tensors[name]
            if not tensor.fits(array.shape) or array.dtype != numpy_dtype(tensor.datatype):
                found = f"{array.dtype} {list(array.shape)}"
                raise _misfit(f"'{case}/{name}' is {found}, the model takes {tensor}")
    return [Case(f"sample {name}", inputs, usual=False) for name, inputs in cases.items()]


def _misfit(reason: str) -> ValidationFailedError:
    return ValidationFailedError(
        f"the samples do not fit the model: {reason}",
        hint="Save arrays under the names of the inputs, or as 'case/input' for several cases.",
        kind="samples",
    )
