"""Detects what a module reads while it runs, besides its inputs and parameters."""

from __future__ import annotations

import builtins
import hashlib
import os
import random
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from exporter.errors import ValidationFailedError

__all__ = ["check_no_external_reads", "check_no_rng", "reads_values", "rng_states"]

_CLOCK = (
    *(time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter),
    *(time.perf_counter_ns, time.process_time, time.localtime, time.gmtime, time.ctime),
    time.strftime,
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
# What these modules read is logged, and not part of the outputs.
_HARMLESS = frozenset({"logging", "warnings", "importlib"})
_OUT_OF_TORCH = frozenset({torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__})


def rng_states() -> dict[str, object]:
    """Return the states of the random number generators."""
    return {
        "Python's generator": random.getstate(),
        "NumPy's generator": hashlib.sha256(repr(np.random.get_state()).encode()).digest(),  # noqa: NPY002
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
    }


def check_no_rng(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Check that no random numbers were drawn, even where they rarely show in the outputs.

    Raises:
        ValidationFailedError: One of them has advanced.
    """
    moved = next((name for name, state in after.items() if state != before[name]), "")
    if moved:
        raise ValidationFailedError(
            f"the registered model is not deterministic: it draws random numbers from {moved}",
            hint="Call model.eval() before logging, and remove noise from forward(). "
            "What draws numbers cannot be proven.",
            kind="determinism",
        )


def check_no_external_reads(run: Callable[[], object]) -> None:
    """Check that a module reads neither clock, environment, files nor machine.

    It must have run before: imports and caches of its first call do not count.

    Raises:
        ValidationFailedError: It reads one of them, which is named.
    """
    read: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        what = _outside(argument) if event == "c_call" else ""
        if event == "call" and frame.f_code is os._Environ.__getitem__.__code__:  # noqa: SLF001
            what = "the environment"
        if what and _called_by_the_model(frame):
            read.append(what)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        run()
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
    except TypeError:  # a method of an unhashable object
        return ""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if name in _NOW and isinstance(owner, type) and issubclass(owner, (date, datetime)):
        return "the clock"
    if isinstance(owner, random.Random) and owner is not random._inst:  # noqa: SLF001
        return "random numbers"
    return ""


def _called_by_the_model(frame: FrameType | None) -> bool:
    """Whether the first caller outside libraries is the model, not its logging or an import."""
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
    """Whether a module makes numbers, lists or arrays from tensors that depend on its inputs.

    A trace would keep those of its example for all inputs.
    """
    inputs = [tensor.clone() for tensor in example]
    marking = _Marking(inputs)
    with torch.no_grad(), marking, _LeavingTorch(marking):
        module(*inputs)
    return marking.read


class _Marking(TorchDispatchMode):  # type: ignore[misc]
    """Marks tensors that depend on some tensors, and detects numbers read from them."""

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
            # Arguments that were written to depend on it as well. Of a packed sequence only the
            # values: torch reads the rows of each step, and traces that correctly.
            packed = func is torch.ops.aten._pack_padded_sequence.default  # noqa: SLF001
            self._mark(result[0] if packed else (result, args))
        return result


class _LeavingTorch(TorchFunctionMode):  # type: ignore[misc]
    """Detects arrays and lists made from marked tensors."""

    def __init__(self, marking: _Marking) -> None:
        super().__init__()
        self._marking = marking

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _OUT_OF_TORCH and self._marking.follows(args[:1]):
            self._marking.read = True
        return func(*args, **(kwargs or {}))
