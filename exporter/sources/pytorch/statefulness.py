"""Checks whether a module keeps state between calls."""

from __future__ import annotations

import copy
import hashlib
import itertools
import random
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from exporter.errors import ValidationFailedError

__all__ = ["check_first_call", "check_stateless", "copy_unrun"]

_PLAIN = (bool, int, float, complex, str, bytes)
_MOST_VALUES = 1024
_MOST_DEPTH = 6
# Attributes that torch keeps in every module: no state of the model's own.
_TORCHS = frozenset(vars(torch.nn.Module()))
# Objects that change with every use, with a function for their state.
_PLACES: dict[Any, Callable[[Any], object]] = {
    itertools.count: repr,
    itertools.cycle: repr,
    random.Random: lambda numbers: hash(numbers.getstate()),
    np.random.Generator: lambda numbers: numbers.bit_generator.state,
    np.random.RandomState: lambda numbers: numbers.get_state(legacy=False),
    torch.Generator: lambda numbers: hash(numbers.get_state().numpy().tobytes()),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_LIBRARIES = frozenset({"torch", "numpy", "builtins", "mlflow", "exporter"})


def check_stateless(module: torch.nn.Module, run: Callable[[], object]) -> None:
    """Check that a module's state does not change with every call.

    State is the attributes of its parts and their classes, and what their methods keep in globals
    and closures. What changes at the first call only is a cache.

    Raises:
        ValidationFailedError: It counts or remembers; the attribute or buffer is named.
    """
    states = []
    for _ in range(3):
        run()
        states.append(_state(module))
    first, second, third = states
    for name, value in third.items():
        if value != second.get(name) and second.get(name) != first.get(name):
            raise ValidationFailedError(
                f"the registered model is not deterministic: it changes its own state while it "
                f"answers ('{name}')",
                hint="Keep counters and running averages outside forward(), and log it again.",
                kind="determinism",
            )


def copy_unrun(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return a copy of a module that shares its weights; None where it cannot be copied."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    with suppress(Exception):  # whatever a part raises that is not to be copied
        return copy.deepcopy(module, {id(weight): weight for weight in module.parameters()})
    return None


def check_first_call(
    run: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
    example: Sequence[torch.Tensor],
    answer: Sequence[torch.Tensor],
) -> None:
    """Check that a module's outputs do not depend on the inputs of its first call.

    *run* runs a copy of the module that has not run yet; *example* and *answer* are what the first
    call of the module took and gave.

    Raises:
        ValidationFailedError: After other inputs, the copy's outputs differ.
    """
    with suppress(Exception):  # other values need not make sense to the model
        run([_other(tensor) for tensor in example])
    try:
        again = run(example)
    except Exception:  # noqa: BLE001 - a copy that cannot run shows nothing
        return
    for before, after in zip(answer, again, strict=False):
        if before.shape != after.shape or not _near(before, after):
            raise ValidationFailedError(
                "the registered model is not deterministic: its answers depend on the inputs of "
                "its first call",
                hint="Keep nothing of the inputs between calls, draw nothing at the first one, "
                "and log it again.",
                kind="determinism",
            )


def _other(tensor: torch.Tensor) -> torch.Tensor:
    moved = tensor.roll(1, 0) if tensor.dim() else tensor
    return -2 * moved if tensor.is_floating_point() else moved


def _near(before: torch.Tensor, after: torch.Tensor) -> bool:
    if not before.is_floating_point():
        return bool(torch.equal(before, after))
    finite = before[before.isfinite()].abs()
    most = float(finite.max()) if finite.numel() else 0.0
    return bool(torch.allclose(before, after, rtol=1e-3, atol=1e-4 * most, equal_nan=True))


def _state(module: torch.nn.Module) -> dict[str, Any]:
    """Everything comparable in a module, by its name."""
    found: dict[str, Any] = {}
    known: _Known = {}
    for prefix, part in module.named_modules():
        for name, value in _held(part):
            described = _described(value, known, _MOST_DEPTH)
            if described is not None:
                found[f"{prefix}.{name}".lstrip(".")] = described
    return found


def _held(part: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The attributes of a part and of its classes, and what its methods refer to."""
    yield from part.named_buffers(recurse=False)
    if isinstance(part, torch.jit.ScriptModule):
        yield from _script_attributes(part)
        return
    yield from ((name, getattr(part, name)) for name in _HOOKS)
    library = _is_foreign(type(part).__module__)
    for name, value in vars(part).items():
        if name not in _TORCHS and not (library and name.startswith("_")):
            yield name, value
    for kind in type(part).__mro__:
        if _is_foreign(kind.__module__):
            continue
        for name, value in vars(kind).items():
            if isinstance(value, types.FunctionType):
                yield from _referred(value)
            elif not name.startswith("__"):
                yield name, value


def _script_attributes(part: torch.jit.ScriptModule) -> Iterator[tuple[str, Any]]:
    """The attributes that a script writes."""
    try:
        nodes = list(part.graph.findAllNodes("prim::SetAttr"))
    except RuntimeError:  # it has no forward()
        return
    for name in dict.fromkeys(node.s("name") for node in nodes):
        with suppress(Exception):  # one of a part of it, which has its own
            yield name, getattr(part, name)


def _referred(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The state of a function: attributes, defaults, globals and closure."""
    yield from vars(function).items()
    yield f"{function.__name__}()", (function.__defaults__, function.__kwdefaults__)
    names = function.__code__.co_names
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, types.ModuleType):
            yield name, value
        elif not _is_foreign(value.__name__):
            yield from ((f"{name}.{held}", vars(value).get(held)) for held in names)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        with suppress(ValueError):  # a cell that is still empty
            yield name, cell.cell_contents


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


_Known = dict[tuple[int, int], tuple[Any, Any]]
"""Values, each with its description, by identity and depth; values stay, so that none is new
under the identity of another."""


def _described(value: Any, known: _Known, depth: int) -> Any:
    """A comparable description of a value; None where there is none."""
    if isinstance(value, torch.Tensor):
        return _digest(value)
    if isinstance(value, np.ndarray):
        return hashlib.sha256(repr(value.tolist()).encode()).digest()
    if isinstance(value, tuple(_PLACES)):
        return next(str(place(value)) for kind, place in _PLACES.items() if isinstance(value, kind))
    if isinstance(value, _PLAIN):
        return value
    if depth == 0:
        return None
    # Functions of one library refer to each other in more ways than can be walked.
    key = (id(value), depth)
    if key not in known:
        known[key] = (value, None)
        if parts := [(name, _described(held, known, depth - 1)) for name, held in _inside(value)]:
            known[key] = (value, hashlib.sha256(repr(parts).encode()).digest())
    return known[key][1]


def _inside(value: Any) -> list[tuple[Any, Any]]:
    """What a value holds, by name; nothing where it is no state."""
    if isinstance(value, dict):
        return [("", len(value)), *((str(k), v) for k, v in list(value.items())[:_MOST_VALUES])]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [("", len(value)), *enumerate(list(value)[:_MOST_VALUES])]
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return [] if frame is None else [("", frame.f_lasti), *frame.f_locals.items()]
    if isinstance(value, (types.MethodType, types.FunctionType)):
        value = getattr(value, "__func__", value)
        return [] if _is_foreign(value.__module__) else list(_referred(value))
    if isinstance(value, (torch.nn.Module, type, types.ModuleType)):
        return []
    own = hasattr(value, "__dict__") and not _is_foreign(type(value).__module__)
    return list(vars(value).items()) if own else []


def _digest(tensor: torch.Tensor) -> object:
    """Content where it is small, and a counter of writes where it is not."""
    if tensor.numel() <= _MOST_VALUES and tensor.layout is torch.strided:
        return tensor.detach().clone().flatten().tolist()
    return tensor._version  # noqa: SLF001
