"""Loads what runs no code of the model, and refuses the rest unless it is allowed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.errors import ValidationFailedError
from exporter.sources.optional_libraries import cannot_load, require

__all__ = ["check_pickle_allowed", "load_skops"]

# A dtype is a name, sizes and offsets.
_HARMLESS = frozenset({"collections.OrderedDict", "collections.defaultdict", "numpy.dtype"})


def check_pickle_allowed(what: str, instead: str, *, allow_pickle: bool) -> None:
    """Refuse a pickle unless it is allowed.

    Raises:
        ValidationFailedError: It is not.
    """
    if not allow_pickle:
        raise ValidationFailedError(
            f"{what} was not loaded: it is a pickle, and loading one runs code that it carries",
            hint=f"Log the model with {instead}, or trust its author with --allow-pickle.",
            kind="unsafe",
        )


def load_skops(path: Path, packages: Sequence[str], *, allow_pickle: bool) -> Any:
    """Load a skops file whose types are all known.

    The types that the MLmodel file lists as trusted do not count: its author wrote the list.

    Args:
        path: The file.
        packages: Trusted packages, in addition to the types that skops trusts.
        allow_pickle: Whether any other type may be made as well.

    Raises:
        ValidationFailedError: It has other types, or is damaged.
        UsageError: skops is not installed.
    """
    skops = require("skops.io", "the estimator is loaded by", "sklearn")
    try:
        types = skops.get_untrusted_types(file=path)
        unknown = [name for name in types if not _is_class_of(name, packages)]
        if allow_pickle or not unknown:
            return skops.load(path, trusted=types)
    except Exception as error:
        raise cannot_load(path.name, error) from error
    raise ValidationFailedError(
        f"{path.name} was not loaded: it makes objects of {', '.join(sorted(unknown))}, which may "
        "run anything",
        hint="Leave them out of the estimator, or trust its author with --allow-pickle.",
        kind="unsafe",
    )


def _is_class_of(name: str, packages: Sequence[str]) -> bool:
    if name in _HARMLESS:
        return True
    if not name.startswith(tuple(packages)):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(found) and found.__module__.startswith(tuple(packages))
