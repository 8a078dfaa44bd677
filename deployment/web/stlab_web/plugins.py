"""Plug-ins: what other installed distributions add to a web application, by entry point."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from exporter.errors import UsageError

__all__ = ["check_signature", "load_plugins"]


def load_plugins(group: str, check: Callable[[Any], None]) -> list[Any]:
    """Return an instance of every plug-in class of an entry point group, by name.

    Args:
        group: The group.
        check: Raises TypeError or ValueError for an object that is not such a plug-in.

    Raises:
        UsageError: A plug-in cannot be imported, takes arguments or does not pass the check.
    """
    plugins = []
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        distribution = entry.dist.name if entry.dist else "an unknown distribution"
        try:
            plugin = entry.load()()
            check(plugin)
        except Exception as error:
            raise UsageError(
                f"plug-in '{entry.name}' of {distribution} ({group}: {entry.value}) is broken: "
                f"{type(error).__name__}: {error}",
                hint=f"Fix it, or remove it: pip uninstall {distribution}",
            ) from error
        plugins.append(plugin)
    return plugins


def check_signature(plugin: Any, method: str, arguments: Iterable[str]) -> None:
    """Check that a method can be called with these positional arguments.

    Raises:
        TypeError: It is missing, or takes others.
    """
    found = getattr(plugin, method, None)
    wanted = f"{method}({', '.join(arguments)})"
    if not callable(found):
        raise TypeError(f"{wanted} is missing")
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{method}{inspect.signature(found)} is not {wanted}: {error}") from error
