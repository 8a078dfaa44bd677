"""How torch runs a model, from the parameters of its configuration.

Names and meanings: the backend's README, "Parameters". Numbers of threads count for a process,
which here is one instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..shared.configuration import boolean_parameter, integer_parameter

__all__ = ["Parameters"]

# Switches of the just-in-time compiler, with their setters.
_SWITCHES = {
    "ENABLE_TENSOR_FUSER": "_jit_set_texpr_fuser_enabled",
    "ENABLE_JIT_PROFILING": "_jit_set_profiling_mode",
    "ENABLE_JIT_EXECUTOR": "_jit_set_profiling_executor",
}


@dataclass(frozen=True)
class Parameters:
    """How a model is run.

    Attributes:
        optimized: Whether TorchScript optimises what it runs.
        inference_mode: Whether autograd tracks nothing.
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
            InvalidArgumentError: One has an invalid value.
        """
        switches = {name: boolean_parameter(config, name) for name in _SWITCHES}
        # Checked, without effect: there is no GPU, and every instance is a process of its own.
        for name in ("ENABLE_CACHE_CLEANING", "DISABLE_CUDNN", "ENABLE_WEIGHT_SHARING"):
            boolean_parameter(config, name)
        inference_mode = boolean_parameter(config, "INFERENCE_MODE")
        return cls(
            optimized=not boolean_parameter(config, "DISABLE_OPTIMIZED_EXECUTION"),
            inference_mode=inference_mode is None or inference_mode,
            intra_threads=max(integer_parameter(config, "INTRA_OP_THREAD_COUNT"), 0),
            inter_threads=max(integer_parameter(config, "INTER_OP_THREAD_COUNT"), 0),
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
        for name, value in self.switches.items():
            getattr(torch._C, _SWITCHES[name])(value)  # noqa: SLF001
