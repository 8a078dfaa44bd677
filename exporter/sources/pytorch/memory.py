"""Finds out whether a module remembers what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporter.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["refuse_memory"]

_PLAIN = (bool, int, float, complex, str, bytes)


def refuse_memory(module: torch.nn.Module, ask: Callable[[], object]) -> None:
    """Refuse a module whose state changes with every call.

    What changes at the first call only is a cache, which is no memory of what was asked.

    Args:
        module: The module.
        ask: Asks it the same each time.

    Raises:
        ValidationFailed: It counts or remembers; the attribute or buffer is named.
    """
    ask()
    states = [_state(module)]
    for _ in range(2):
        ask()
        states.append(_state(module))
    first, second, third = states
    for name, value in third.items():
        if value != second.get(name) and second.get(name) != first.get(name):
            raise ValidationFailed(
                f"the registered model is not deterministic: it changes its own state while it "
                f"answers ('{name}')",
                hint="Keep counters and running averages outside forward(), and log it again.",
                kind="determinism",
            )


def _state(module: torch.nn.Module) -> dict[str, Any]:
    """Everything that a module holds and that can be compared, by its name."""
    found: dict[str, Any] = {}
    for prefix, part in module.named_modules():
        own = {} if isinstance(part, torch.jit.ScriptModule) else vars(part)
        for name, value in {**own, **dict(part.named_buffers(recurse=False))}.items():
            if isinstance(value, torch.Tensor):
                found[f"{prefix}.{name}".lstrip(".")] = _digest(value)
            elif isinstance(value, _PLAIN) and not name.startswith("_"):
                found[f"{prefix}.{name}".lstrip(".")] = value
            elif isinstance(value, (list, set, dict)) and not name.startswith("_"):
                found[f"{prefix}.{name}".lstrip(".")] = len(value)
    return found


def _digest(tensor: torch.Tensor) -> object:
    """Content where it is small, and a counter of writes where it is not."""
    if tensor.numel() <= 1024:
        return tensor.detach().clone().flatten().tolist()
    return tensor._version  # noqa: SLF001
