"""Watches what a module touches while it answers, beside its inputs and what it holds."""

from __future__ import annotations

import builtins
import hashlib
import os
import random
import sys
import sysconfig
import threading
import time
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from exporter.errors import ValidationFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

__all__ = ["check_no_external_reads", "check_no_rng", "reads_values", "rng_states"]

_CLOCK = (
    *(time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter),
    *(
        time.perf_counter_ns,
        time.process_time,
        time.localtime,
        time.gmtime,
        time.ctime,
        time.strftime,
    ),
)
_MACHINE = (os.getpid, os.urandom, threading.get_ident, os.cpu_count, torch.get_num_threads)
_OUTSIDE: dict[Any, str] = {
    **dict.fromkeys(_CLOCK, "the clock"),
    **dict.fromkeys(_MACHINE, "the machine that it runs on"),
    **dict.fromkeys((builtins.open, os.open, os.stat), "files"),
    builtins.hash: "Python's hashes, which differ from process to process",
}
_NOW = frozenset({"now", "utcnow", "today"})
_LIBRARY = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
# What these read is written down, and not answered.
_HARMLESS = frozenset({"logging", "warnings", "importlib"})
_OUT_OF_TORCH = frozenset({torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__})


def rng_states() -> dict[str, object]:
    """Return the states of the generators that numbers are drawn from."""
    return {
        "Python's generator": random.getstate(),
        "NumPy's generator": hashlib.sha256(repr(np.random.get_state()).encode()).digest(),  # noqa: NPY002
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
    }


def check_no_rng(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Refuse what draws numbers, however rarely these show in its answers.

    Args:
        before: The generators before the model was asked.
        after: The same afterwards.

    Raises:
        ValidationFailedError: One of them has moved.
    """
    moved = next((name for name, state in after.items() if state != before[name]), "")
    if moved:
        raise ValidationFailedError(
            f"the registered model is not deterministic: it draws random numbers from {moved}",
            hint="Call model.eval() before logging, and remove noise from forward(). "
            "What draws numbers cannot be proven.",
            kind="determinism",
        )


def check_no_external_reads(ask: Callable[[], object]) -> None:
    """Refuse a module that reads the clock, the environment, files or the machine.

    Args:
        ask: Asks the module, which was asked before: what is imported or kept at the first call is
            not read again.

    Raises:
        ValidationFailedError: It does; what it reads is named.
    """
    read: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        what = _outside(argument) if event == "c_call" else ""
        if event == "call" and frame.f_code is os._Environ.__getitem__.__code__:  # noqa: SLF001
            what = "the environment"
        if what and _asked_by_the_model(frame):
            read.append(what)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        ask()
    finally:
        sys.setprofile(before)
    if read:
        raise ValidationFailedError(
            f"the model reads {read[0]} while it answers, so its answers do not follow from its "
            "inputs alone",
            hint="Pass in what it reads as an input, or read it once in __init__, and log the "
            "model again.",
            kind="determinism",
        )


def _outside(function: Any) -> str:
    try:
        if what := _OUTSIDE.get(function):
            return what
    except TypeError:  # a method of what has no hash
        return ""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if name in _NOW and isinstance(owner, type) and issubclass(owner, (date, datetime)):
        return "the clock"
    if isinstance(owner, random.Random) and owner is not random._inst:  # noqa: SLF001
        return "random numbers"
    return ""


def _asked_by_the_model(frame: FrameType | None) -> bool:
    """Whether the first who is of no library is the model, and not its logging or an import."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module in _HARMLESS:
            return False
        site = any(part in frame.f_code.co_filename for part in ("site-packages", "dist-packages"))
        if site or not frame.f_code.co_filename.startswith((*_LIBRARY, "<frozen")):
            return not site and module not in {"exporter", "torch"}
        frame = frame.f_back
    return False


def reads_values(module: Callable[..., object], example: Sequence[torch.Tensor]) -> bool:
    """Whether a module makes numbers, lists or arrays of what follows from its inputs.

    A trace keeps those of its example for all inputs.

    Args:
        module: Takes tensors by position.
        example: What to call it with.
    """
    inputs = [tensor.clone() for tensor in example]
    following = _Following(inputs)
    with torch.no_grad(), following, _Leaving(following):
        module(*inputs)
    return following.read


class _Following(TorchDispatchMode):  # type: ignore[misc]
    """Marks what follows from some tensors, and sees when a number is made of it."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.read = False
        self._marked = WeakTensorKeyDictionary()
        self._mark(tensors)

    def follows(self, values: Any) -> bool:
        return any(
            isinstance(leaf, torch.Tensor) and leaf in self._marked
            for leaf in pytree.tree_leaves(values)
        )

    def _mark(self, values: Any) -> None:
        for leaf in pytree.tree_leaves(values):
            if isinstance(leaf, torch.Tensor):
                self._marked[leaf] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.follows((args, kwargs)):
            self.read |= any(
                isinstance(leaf, (bool, int, float)) for leaf in pytree.tree_leaves(result)
            )
            # What it was written into follows from it as well; of a packed sequence its values:
            # how many rows there are at each step is read by torch, which traces it as it should.
            packed = func is torch.ops.aten._pack_padded_sequence.default  # noqa: SLF001
            self._mark(result[0] if packed else (result, args))
        return result


class _Leaving(TorchFunctionMode):  # type: ignore[misc]
    """Sees arrays and lists made of what is followed."""

    def __init__(self, following: _Following) -> None:
        super().__init__()
        self._following = following

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _OUT_OF_TORCH and self._following.follows(args[:1]):
            self._following.read = True
        return func(*args, **(kwargs or {}))
