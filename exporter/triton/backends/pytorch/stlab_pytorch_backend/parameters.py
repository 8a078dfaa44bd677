"""What a model configuration says about how torch runs.

Names and meanings: the backend's README, "Parameters". The numbers of threads count for a process,
which here is one instance.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Parameters"]

_INTEGER = re.compile(r"\s*([+-]?\d+)")
_TRUE, _FALSE = frozenset({"true", "on", "1"}), frozenset({"false", "off", "0"})


@dataclass(frozen=True)
class Parameters:
    """How a model is run.

    Attributes:
        optimized: Whether TorchScript optimises what it runs.
        inference_mode: Whether tensors remember nothing of where they come from.
        intra_threads: Threads inside one operator; 0 for torch's own choice.
        inter_threads: Threads between operators; 0 for torch's own choice.
        switches: Of the just-in-time compiler, by their names, where they are set.
    """

    optimized: bool
    inference_mode: bool
    intra_threads: int
    inter_threads: int
    switches: Mapping[str, bool]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Parameters:
        """Read the parameters of a configuration.

        Raises:
            InvalidArgumentError: One has a value that makes no sense.
        """
        names = ("ENABLE_TENSOR_FUSER", "ENABLE_JIT_PROFILING", "ENABLE_JIT_EXECUTOR")
        switches = {name: _boolean(config, name) for name in names}
        # Checked, and without effect: there is no GPU, and every instance is a process of its own.
        for name in ("ENABLE_CACHE_CLEANING", "DISABLE_CUDNN", "ENABLE_WEIGHT_SHARING"):
            _boolean(config, name)
        inference_mode = _boolean(config, "INFERENCE_MODE")
        return cls(
            optimized=not _boolean(config, "DISABLE_OPTIMIZED_EXECUTION"),
            inference_mode=inference_mode is None or inference_mode,
            intra_threads=max(_integer(config, "INTRA_OP_THREAD_COUNT"), 0),
            inter_threads=max(_integer(config, "INTER_OP_THREAD_COUNT"), 0),
            switches={name: value for name, value in switches.items() if value is not None},
        )

    def apply(self) -> None:
        """Set what counts for the whole process."""
        import torch

        if self.intra_threads:
            torch.set_num_threads(self.intra_threads)
        if self.inter_threads:
            with suppress(RuntimeError):  # set before, as NVIDIA's backend ignores too
                torch.set_num_interop_threads(self.inter_threads)
        own = torch._C  # noqa: SLF001
        setters = {
            "ENABLE_TENSOR_FUSER": own._jit_set_texpr_fuser_enabled,  # noqa: SLF001
            "ENABLE_JIT_PROFILING": own._jit_set_profiling_mode,  # noqa: SLF001
            "ENABLE_JIT_EXECUTOR": own._jit_set_profiling_executor,  # noqa: SLF001
        }
        for name, value in self.switches.items():
            setters[name](value)


def _parameter(config: Mapping[str, Any], key: str) -> str | None:
    parameter = (config.get("parameters") or {}).get(key)
    return None if parameter is None else str(parameter.get("string_value", ""))


def _integer(config: Mapping[str, Any], key: str) -> int:
    """Return a parameter as C++'s ``stoi`` reads it: digits up to whatever follows them."""
    value = _parameter(config, key)
    if value is None:
        return 0
    match = _INTEGER.match(value)
    if match is None or not -(2**31) <= int(match.group(1)) < 2**31:
        raise InvalidArgumentError(f"failed to convert '{value}' to integral number")
    return int(match.group(1))


def _boolean(config: Mapping[str, Any], key: str) -> bool | None:
    value = _parameter(config, key)
    if value is None:
        return None
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgumentError(f"failed to convert '{value}' to boolean")
