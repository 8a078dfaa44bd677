"""Plug-ins: what other installed distributions add to a web application, by entry point."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from exporter.errors import UsageError

__all__ = ["check_paths", "check_signature", "check_texts", "load_plugins"]


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


def check_texts(plugin: Any, *attributes: str) -> None:
    """Raise TypeError if one of these attributes is not a string."""
    for name in attributes:
        if not isinstance(getattr(plugin, name, None), str):
            raise TypeError(f"{name} is not a string")


def check_signature(plugin: Any, method: str, *arguments: str) -> None:
    """Raise TypeError if a method cannot be called with these positional arguments."""
    found = getattr(plugin, method, None)
    wanted = f"{method}({', '.join(arguments)})"
    if not callable(found):
        raise TypeError(f"{wanted} is missing")
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{method}{inspect.signature(found)} is not {wanted}: {error}") from error


def check_paths(plugins: Iterable[Any]) -> None:
    """Raise UsageError if two plug-ins have the same path."""
    by_path: dict[str, Any] = {}
    for plugin in plugins:
        other = by_path.setdefault(plugin.path, plugin)
        if other is not plugin:
            raise UsageError(
                f"the plug-ins {type(other).__name__} and {type(plugin).__name__} both serve "
                f"{plugin.path}",
                hint="Uninstall one of them.",
            )
